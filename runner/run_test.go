package runner

import (
	"errors"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
)

func TestFinishedSaysWhatHappenedInOneLine(t *testing.T) {
	r := &run{cfg: Config{Policy: policy.Default()}}
	f := r.finished(ending{}, errors.New("write plan.json: no space left\nhint: free some space"))
	if f.Outcome != event.Errored || f.ExitCode != exitFailure || f.Reason != "write plan.json: no space left" {
		t.Errorf("finished = %+v", f)
	}
}
