package guest

import (
	"fmt"
	"io"
	"os"

	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/workspace/ovl"
)

// Main is the guest program: process 1 without arguments, or what its first argument says. It returns the exit status.
func Main(args []string, in io.ReadCloser, out io.WriteCloser, diag io.Writer) int {
	var err error
	switch {
	case len(args) == 0:
		err = Run(in, out)
	case len(args) == 1 && args[0] == link.ArgExec:
		return execute()
	case len(args) == 2 && args[0] == link.ArgXattrs:
		err = ovl.Dump(out, args[1])
	case len(args) == 2 && args[0] == link.ArgEmpty:
		err = ovl.Empty(args[1])
	default:
		err = fmt.Errorf("unknown arguments %q: this program is started by agent-sandbox alone", args)
	}
	if err != nil {
		fmt.Fprintln(diag, "guest:", err)
		return 1
	}
	return 0
}

var _ io.ReadWriteCloser = pipes{(*os.File)(nil), (*os.File)(nil)}
