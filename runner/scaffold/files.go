package scaffold

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/org/agent-sandbox/policy"
)

// The files, slash-separated, below the project.
const (
	PolicyFile     = ".agent-sandbox.yaml"
	DockerfileFile = ".agent-sandbox/Dockerfile"
	WorkflowFile   = ".github/workflows/agent-sandbox.yml"
	TrustFile      = ".github/agent-sandbox/trust/agent-sandbox.yaml"
	RotationFile   = ".github/workflows/agent-sandbox-credentials.yml"
)

// Options are what the project doesn't tell.
type Options struct {
	Image  string // the usual image's reference; required
	Agent  string // name of a kit; empty: the one found, else none
	Action string // what the workflow uses, as owner/name@ref; required
	CIOnly bool   // only the workflows and the trust policy
	// Rotation adds the workflow that tells of overdue credentials. Release is the tag of the release that it uses; empty: the latest.
	Rotation bool
	Release  string
}

// File is one to be written.
type File struct {
	Path    string
	About   string // what it is for, in a line
	Content string
}

// data is what the templates see. Every string in it is a literal of ours, a checked name or the caller's own.
type data struct {
	Project
	Options
	Agent    string // name of Kit; empty: none
	Kit      policy.Kit
	Secret   string // the variable with the agent's key
	Service  string // the credential's name in the policy
	Packages []string
	Bundles  []Language // one for each bundle
	Home     string     // owner/name of the repository with our releases
	Build    string     // the Dockerfile that the policy's image is built from; empty: it is Image
}

//go:embed templates/*.tmpl
var templates embed.FS

// Files are those that the project should have, in the order in which people should read them. An unknown agent is an error.
func Files(p Project, o Options) ([]File, error) {
	d := data{Project: p, Options: o}
	d.Agent = cmp.Or(o.Agent, p.Agent)
	if d.Agent != "" {
		kit, ok := policy.LookupKit(d.Agent)
		if !ok {
			return nil, fmt.Errorf("there is no agent %q", d.Agent)
		}
		d.Kit = kit
		if len(kit.Credentials) > 0 {
			d.Service, d.Secret = kit.Credentials[0].Service, kit.Credentials[0].From[0]
		}
	}
	d.Home, _, _ = strings.Cut(o.Action, "@")
	d.plan()
	t, err := template.New("").Funcs(template.FuncMap{"join": strings.Join}).ParseFS(templates, "templates/*.tmpl")
	if err != nil {
		return nil, err
	}
	var files []File
	for _, f := range d.wanted() {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, f.Content, &d); err != nil {
			return nil, err
		}
		f.Content = b.String()
		files = append(files, f)
	}
	return files, nil
}

// plan decides what the image is made from. The project's own devcontainer comes first: it is there for people to work in. A Dockerfile
// at the root is most often the product's, without a shell or tools, so it is only mentioned.
func (d *data) plan() {
	for _, l := range d.Languages {
		if !slices.ContainsFunc(d.Bundles, func(o Language) bool { return o.Bundle == l.Bundle }) {
			d.Bundles = append(d.Bundles, l)
		}
	}
	switch {
	case d.DevDockerfile != "":
		d.Build = d.DevDockerfile
		return
	case d.DevImage != "":
		d.Image = d.DevImage
		return
	}
	for _, l := range d.Languages {
		d.Packages = append(d.Packages, l.Packages...)
	}
	if len(d.Packages) > 0 {
		d.Build = DockerfileFile
	}
}

// Installed is the agent that the image gets by the policy's word; empty for one that it has to have by itself.
func (d *data) Installed() string {
	if slices.Contains(policy.Installable(), d.Agent) {
		return d.Agent
	}
	return ""
}

// wanted are the files, each with its template in place of the content.
func (d *data) wanted() []File {
	var files []File
	if !d.CIOnly {
		files = append(files, File{PolicyFile, "what the agent sees, reaches and may use", "policy.yaml.tmpl"})
		if d.Build == DockerfileFile {
			files = append(files, File{DockerfileFile, "the image that it works in", "Dockerfile.tmpl"})
		}
	}
	files = append(files, File{WorkflowFile, "runs it on GitHub", "workflow.yml.tmpl"})
	if d.Rotation {
		files = append(files, File{RotationFile, "opens an issue when a credential is overdue", "rotation.yml.tmpl"})
	}
	if d.Repository != "" {
		files = append(files, File{TrustFile, "what a workflow of this repository can get from the token broker", "trust.yaml.tmpl"})
	}
	return files
}
