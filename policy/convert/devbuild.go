package convert

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// DevBuild is what the image of a devcontainer.json is made from (https://containers.dev/implementors/json_reference/).
type DevBuild struct {
	Image      string            // a reference; the rest is empty then
	Dockerfile string            // slash-separated, relative to the file
	Context    string            // the same
	Target     string            // stage of the Dockerfile; empty for the last
	Args       map[string]string // build arguments
}

// ParseDevBuild reads image, or the section build and its older form, of a devcontainer.json. What would make the image another one, and
// can't be carried over, is an error: features, a compose file, options for the builder, values that are made up elsewhere.
func ParseDevBuild(text []byte) (DevBuild, error) {
	var b DevBuild
	o, err := parseObject(text)
	if err != nil {
		return b, err
	}
	switch {
	case len(o.object("features")) > 0:
		return b, errors.New("its features are scripts that an image is extended with, and only the devcontainer tools can run them\n" +
			"hint: build it with those (devcontainer build) and name the image in the policy, or install the tools in the Dockerfile")
	case o["dockerComposeFile"] != nil:
		return b, errors.New("dockerComposeFile: a service of a compose file is not built here\nhint: name that service's Dockerfile with image: {build: ...}")
	}
	build := o.object("build")
	if len(build) == 0 { // before 2020 these stood beside each other
		for from, to := range map[string]string{"dockerFile": "dockerfile", "context": "context"} {
			if raw, ok := o[from]; ok {
				build[to] = raw
			}
		}
	}
	if len(build) == 0 {
		if !o.take("image", &b.Image) || b.Image == "" {
			return b, errors.New("it names neither an image nor a Dockerfile")
		}
		return b, unresolved("image", b.Image)
	}
	return b, b.read(build)
}

// read takes the section build.
func (b *DevBuild) read(build object) error {
	for key, into := range map[string]any{"dockerfile": &b.Dockerfile, "context": &b.Context, "target": &b.Target, "args": &b.Args} {
		if _, ok := build[key]; ok && !build.take(key, into) {
			return fmt.Errorf("build.%s has another type than it should", key)
		}
	}
	delete(build, "cacheFrom") // is for speed alone
	if left := build.keys(); len(left) > 0 {
		return fmt.Errorf("build.%s can't be carried over\nhint: remove it, or build with the devcontainer tools and name the image in the policy", left[0])
	}
	for name, text := range map[string]string{"build.dockerfile": b.Dockerfile, "build.context": b.Context, "build.target": b.Target} {
		if path.IsAbs(text) || strings.Contains(text, `\`) {
			return fmt.Errorf("%s: %q is no path relative to the file", name, text)
		}
		if err := unresolved(name, text); err != nil {
			return err
		}
	}
	for name, text := range b.Args {
		if err := unresolved("build.args."+name, text); err != nil {
			return err
		}
	}
	if b.Dockerfile == "" {
		return errors.New("build.dockerfile is missing")
	}
	return nil
}

// unresolved refuses a value with a variable such as ${localEnv:NAME}: the image would depend on the machine.
func unresolved(name, text string) error {
	if strings.Contains(text, "${") {
		return fmt.Errorf("%s: %q depends on the machine\nhint: write the value itself", name, text)
	}
	return nil
}
