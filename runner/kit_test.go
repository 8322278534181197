package runner

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// kitRun is a run of the kit claude with this policy, which has got its credential.
func kitRun(t *testing.T, text string) (*run, *Plan) {
	t.Helper()
	k, _ := policy.LookupKit("claude")
	p, use, err := loaded(t, text).WithKit(k, func(name string) bool { return name == "ANTHROPIC_API_KEY" })
	if err != nil {
		t.Fatal(err)
	}
	r, _ := newRun(t, Config{Policy: p, Kit: &use, Image: "small", LookupEnv: func(name string) (string, bool) { return modelKey, name == "ANTHROPIC_API_KEY" }})
	if err := r.credentials(t.Context()); err != nil {
		t.Fatal(err)
	}
	plan := &Plan{Kit: r.kitPlan()}
	if err := r.environment(plan); err != nil {
		t.Fatal(err)
	}
	return r, plan
}

// TestKitInPlan: the plan says what came from the kit, and nothing in it has the key.
func TestKitInPlan(t *testing.T) {
	r, plan := kitRun(t, `env: ["DISABLE_UPDATES=0"]`)
	if plan.Kit.Name != "claude" || plan.Kit.Credential != "anthropic" || !plan.Kit.Added || len(plan.Kit.Hosts) != 1 || len(plan.Kit.Files) != 4 {
		t.Errorf("the plan has the kit %+v", plan.Kit)
	}
	sources := map[string]string{}
	for _, v := range plan.Env {
		sources[v.Name] = v.Source + " " + v.value
	}
	placeholder := r.grants[0].Placeholder
	for name, want := range map[string]string{
		"CLAUDE_CODE_SANDBOXED": "kit 1", "DISABLE_UPDATES": "policy 0", "ANTHROPIC_API_KEY": "credential " + placeholder,
	} {
		if sources[name] != want {
			t.Errorf("%s is %q, want %q", name, sources[name], want)
		}
	}
	at := slices.IndexFunc(plan.files, func(f link.File) bool { return f.Name == "claude.json" })
	if at < 0 || plan.files[at].Copy != "/home/agent/.claude.json" {
		t.Fatalf("the files are %+v", plan.files)
	}
	if content := string(plan.files[at].Content); !strings.Contains(content, `"`+placeholder[len(placeholder)-20:]+`"`) || strings.Contains(content, modelKey[len(modelKey)-10:]) {
		t.Errorf("claude.json has %s", content)
	}
}

// TestKitEnds: the record says what an exit status means, and a missing program is a refusal with its mend.
func TestKitEnds(t *testing.T) {
	r, _ := kitRun(t, "")
	for name, tt := range map[string]struct {
		end     ending
		outcome event.Outcome
		reason  string
	}{
		"success":            {ending{reason: event.Exited}, event.Success, ""},
		"a status we know":   {ending{reason: event.Exited, exit: link.Exit{Code: 1}}, event.Failure, "claude ended with 1: the task failed, or the API refused"},
		"one we don't know":  {ending{reason: event.Exited, exit: link.Exit{Code: 7}}, event.Failure, ""},
		"no such program":    {ending{reason: event.NotStarted, exit: link.Exit{Code: 127, Error: "no"}}, event.Refused, "the agent claude is not in the image: small has no program claude"},
		"not to be executed": {ending{reason: event.NotStarted, exit: link.Exit{Code: 126, Error: "bad"}}, event.Failure, "bad"},
		"a signal":           {ending{reason: event.Signalled, exit: link.Exit{Code: 1}}, event.Failure, ""},
	} {
		err := r.lacksProgram(tt.end)
		got := r.finished(tt.end, err)
		if got.Outcome != tt.outcome || got.Reason != tt.reason {
			t.Errorf("%s: %s, %q; want %s, %q", name, got.Outcome, got.Reason, tt.outcome, tt.reason)
		}
		refused, _ := errors.AsType[*RefusedError](err)
		if (refused != nil) != (tt.outcome == event.Refused) || refused != nil && !strings.Contains(refused.Hint, "agents: [claude]") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNoKit: a command of the caller's has nothing of this.
func TestNoKit(t *testing.T) {
	r, _ := newRun(t, Config{Policy: policy.Default()})
	end := ending{reason: event.NotStarted, exit: link.Exit{Code: 127}}
	if r.kitPlan() != nil || r.kitFiles() != nil || r.kitName() != "" || r.exitMeaning(end) != "" || r.lacksProgram(end) != nil {
		t.Error("a run without a kit has one")
	}
}
