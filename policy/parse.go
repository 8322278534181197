package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// parseProjectPath reads the path of a file in the project.
func parseProjectPath(s string) (string, error) {
	if !fs.ValidPath(s) || s == "." {
		return "", errors.New(`want a path relative to the project, without "." and ".."`)
	}
	return s, nil
}

func parseProtectPattern(s string) (Pattern, error) {
	if strings.HasPrefix(s, "!") {
		return Pattern{}, errors.New(`"!" takes nothing back here; apply has --allow-protected PATH`)
	}
	return ParsePattern(s)
}

// parseMountSource reads the host side of a mount.
func parseMountSource(s string) (string, error) {
	rest := s
	if len(s) > 2 && s[1] == ':' { // C:/Users
		rest = s[2:]
	}
	for strings.HasPrefix(rest, "../") {
		rest = rest[3:]
	}
	rest = strings.TrimPrefix(strings.TrimPrefix(rest, "./"), "~")
	clean := strings.TrimPrefix(rest, "/")
	if clean != "" && path.Clean("/"+clean) != "/"+strings.TrimSuffix(clean, "/") {
		return "", errors.New(`the path has "." or ".." or "//" in it`)
	}
	return strings.TrimSuffix(s, "/"), CheckMountSource(s)
}

// CheckMountSource refuses the paths of a host that give it away: the engine's socket, kernel interfaces, the stores of
// credentials, whole homes and roots. The loader asks it for what the file says; ask it again for what that
// resolves to, symbolic links followed, since only then it is known what is mounted.
func CheckMountSource(source string) error {
	lower := strings.ToLower(strings.TrimSuffix(source, "/"))
	if slices.Contains([]string{"", "~", "/root", "/home", "/users", "/var", "/usr", "/etc", "/boot", "/run", "/var/run", "c:", ".", ".."}, lower) {
		return fmt.Errorf("%q is more of the host than a task needs; name the directory itself", source)
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/boot", "/run/systemd", "/run/containerd", "/var/lib/docker", "/var/lib/containerd", "/var/lib/kubelet"} {
		if lower == dir || strings.HasPrefix(lower, dir+"/") {
			return fmt.Errorf("%q is an interface to the host's kernel or engine, which is a way out of the sandbox", source)
		}
	}
	for name := range strings.SplitSeq(lower, "/") {
		switch {
		case slices.Contains([]string{"docker.sock", "containerd.sock", "podman.sock", "crio.sock", "docker.raw.sock"}, name):
			return errors.New("the engine's socket is a way out of the sandbox: whoever has it is root on the host")
		case slices.Contains([]string{".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".password-store", ".netrc", ".git-credentials", ".vault-token", "gcloud", "keychains", "keyrings"}, name):
			return fmt.Errorf("%q holds credentials; name what the task needs under credentials", source)
		}
	}
	return nil
}

// parseMountTarget reads the path inside. It can't cover what the sandbox itself is made of.
func parseMountTarget(s string) (string, error) {
	if path.Clean(s) != s {
		return "", errors.New(`want an absolute path without ".", ".." and "//", and without a slash at its end`)
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/etc", "/tmp", "/.agent-sandbox"} {
		if s == dir || strings.HasPrefix(s, dir+"/") {
			return "", fmt.Errorf("%s belongs to the sandbox itself", dir)
		}
	}
	if slices.Contains([]string{"/bin", "/sbin", "/lib", "/lib64", "/usr", "/var", "/home", "/root"}, s) {
		return "", fmt.Errorf("%s belongs to the image; mount below it", s)
	}
	return s, nil
}

var (
	// secretName finds the variables that hold a secret by every convention; the sandbox gets none of those.
	secretName = regexp.MustCompile(`(?i)(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY(?:_ID)?|SECRET_?KEY|CREDENTIALS?|AUTH)$`)
	// hostOnlyName finds those that mean something on the host alone, or give a workflow's rights away.
	hostOnlyName = regexp.MustCompile(`^(?:ACTIONS_(?:RUNTIME|ID_TOKEN|RESULTS|CACHE).*|GITHUB_(?:ENV|OUTPUT|PATH|STATE|STEP_SUMMARY)|SSH_AUTH_SOCK|SSH_AGENT_PID|GPG_AGENT_INFO|DOCKER_HOST|DBUS_SESSION_BUS_ADDRESS|AGENT_SANDBOX_.*|INPUT_.*)$`)
)

// parseEnv reads NAME or NAME=value.
func parseEnv(s string) (EnvVar, error) {
	name, value, set := strings.Cut(s, "=")
	switch {
	case hostOnlyName.MatchString(name):
		return EnvVar{}, fmt.Errorf("%s belongs to the host and is never passed on", name)
	case !set && secretName.MatchString(name):
		return EnvVar{}, hintedError{fmt.Sprintf("%s looks like a secret, and a secret does not go inside", shorten(name)), fmt.Sprintf("under credentials: {from: env:%s}", shorten(name))}
	}
	return EnvVar{Name: name, Value: value, FromHost: !set}, nil
}

func parseOrigin(s string, known []string) (Origin, error) {
	name, argument, _ := strings.Cut(s, ":")
	if !slices.Contains(known, name) {
		hint := didYouMean(name, known)
		if hint == "" {
			hint = "one of " + strings.Join(known, ", ")
		}
		return Origin{}, hintedError{fmt.Sprintf("unknown source %q", shorten(name)), hint}
	}
	return Origin{Kind: name, Argument: argument}, nil
}

func parseRepository(s string) (string, error) {
	if _, name, ok := strings.Cut(s, "/"); ok && (name == "." || name == "..") {
		return "", errors.New(`want "owner/name"`)
	}
	return s, nil
}

// parseBroker reads an https URL without user, query and fragment.
func parseBroker(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("want an https URL with a host and no query")
	}
	if _, err := ParseTarget(u.Hostname()); err != nil {
		return "", err
	}
	return strings.TrimSuffix(s, "/"), nil
}

// parseRefPattern follows git-check-ref-format(1), with stars.
func parseRefPattern(s string) (string, error) {
	switch {
	case strings.Contains(s, ".."), strings.Contains(s, "//"), strings.Contains(s, "@{"), strings.HasSuffix(s, "/"), strings.HasSuffix(s, "."), strings.HasSuffix(s, ".lock"):
		return "", errors.New("this is no name of a ref")
	}
	if _, err := refParts(s); err != nil {
		return "", err
	}
	return s, nil
}
