// Guest is process 1 of a sandbox's container. It is of no use outside of one.
package main

import (
	"os"

	"github.com/org/agent-sandbox/runner/guest"
)

func main() {
	os.Exit(guest.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
