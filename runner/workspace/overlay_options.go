package workspace

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// maxMountData is what mount(2) takes: one page, with the NUL that ends it.
const maxMountData = 4095

// overlayOptions is the "o" option of the engine's local driver for an overlay. The string passes two
// splitters: the engine's, at each comma without any escape, which takes out the pieces that are flags such as "ro" and
// joins the rest again; and the kernel's, at commas and colons with a backslash before those that belong to a name.
//
//   - redirect_dir=on: a directory of the project can be renamed; without it rename(2) is EXDEV and `git mv` fails.
//   - metacopy=off: a chmod copies the file up whole, so that upper/ alone holds what the agent has.
//   - index=off: the lower layer may be the upper of nothing, and no file handles are kept that need its filesystem's help.
func overlayOptions(lower, upper, work string) (string, error) {
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,redirect_dir=on,metacopy=off,index=off",
		overlayPath(lower), overlayPath(upper), overlayPath(work))
	if len(opts) > maxMountData {
		return "", fmt.Errorf("the paths of the project and of the run's state are longer than the %d bytes that a mount takes", maxMountData)
	}
	if !utf8.ValidString(opts) {
		return "", errors.New("the path of the project or of the run's state is not UTF-8, which the engine's API can't carry")
	}
	return opts, nil
}

// overlayPath writes a path so that the kernel reads it back as it is. A comma gets a backslash, so no piece of it
// can equal a flag for the engine, but for the last one; "/." at the end sees to that.
func overlayPath(path string) string {
	escaped := strings.NewReplacer(`\`, `\\`, ",", `\,`, ":", `\:`).Replace(path)
	if strings.Contains(path, ",") {
		return escaped + "/."
	}
	return escaped
}

// procPath names the directory of an open descriptor for another process with the same /proc. It needs no
// escaping, whatever the directory's name.
func procPath(fd uintptr) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
}
