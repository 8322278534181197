package main

import (
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/event"
)

// What action.yml says of the action is what the program does: the same inputs with the same defaults, and the same outputs.
func TestActionIsAsDescribed(t *testing.T) {
	b, err := os.ReadFile("../../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	type field struct {
		Description, Default string
	}
	var file struct {
		Inputs, Outputs map[string]field
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	got, want := map[string]string{}, map[string]string{}
	for name, f := range file.Inputs {
		got[name] = f.Default
	}
	for _, in := range actions.InputTable() {
		want[in.Name] = in.Default
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the inputs of action.yml are not the program's (-program +file):\n%s", diff)
	}
	var written []string
	s := &step{job: &actions.Job{}}
	for _, o := range s.outputs(event.Summary{}, appliedChanges{}, "", actions.Artifact{}) {
		written = append(written, o.Name)
	}
	slices.Sort(written)
	if diff := cmp.Diff(written, slices.Sorted(maps.Keys(file.Outputs))); diff != "" {
		t.Errorf("the outputs of action.yml are not the program's (-program +file):\n%s", diff)
	}
	for _, fields := range []map[string]field{file.Inputs, file.Outputs} {
		for name, f := range fields {
			if f.Description == "" {
				t.Errorf("%s has no description", name)
			}
		}
	}
}
