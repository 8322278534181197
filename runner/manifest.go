package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runs"
)

// signTimeout bounds a signature, for which servers may be asked.
const signTimeout = 60 * time.Second

// Sealer makes the manifests of runs: of this process' own when they end, and of those whose runner died.
type Sealer struct {
	Signer manifest.Signer     // nil: nothing is signed
	Policy *policy.Policy      // nil: only the record has it
	Task   string              // in words, for a policy that wants it in the evidence
	Redact func(string) string // takes the run's secrets out of a text; nil: they are not known

	weakened manifest.Weakened
}

// Seal has dir write its manifest when it ends.
func (s Sealer) Seal(ctx context.Context, dir *runs.Run) {
	ctx = context.WithoutCancel(ctx)
	dir.Seal = func(sum event.Summary) ([]byte, event.Manifest, error) {
		ctx, cancel := context.WithTimeout(ctx, signTimeout)
		defer cancel()
		return s.seal(ctx, dir, sum)
	}
}

func (s Sealer) seal(ctx context.Context, dir *runs.Run, sum event.Summary) ([]byte, event.Manifest, error) {
	files, err := dir.FS()
	if err != nil {
		return nil, event.Manifest{}, fmt.Errorf("make manifest: %w", err)
	}
	in := manifest.Input{Summary: sum, Files: files, Prompt: s.Task, Redact: s.Redact, Weakened: s.weakened}
	if s.Policy != nil {
		if in.Policy, err = json.Marshal(s.Policy); err != nil {
			return nil, event.Manifest{}, fmt.Errorf("make manifest: %w", err)
		}
		if s.Redact != nil {
			in.Policy = json.RawMessage(s.Redact(string(in.Policy))) // what is no JSON any more gives no statement
		}
	}
	statement, err := manifest.Build(in)
	if err != nil {
		return nil, event.Manifest{}, fmt.Errorf("make manifest: %w", err)
	}
	return sign(ctx, s.Signer, statement)
}

// sign signs. A signature that was asked for and can't be had fails the run, but leaves it the manifest; so does one that lacks something,
// which the manifest keeps.
func sign(ctx context.Context, signer manifest.Signer, statement []byte) ([]byte, event.Manifest, error) {
	var signErr error
	signed, err := manifest.Signed{}, error(nil)
	if signer != nil {
		if signed, err = signer.Sign(ctx, statement); err != nil {
			signErr = fmt.Errorf("sign manifest: %w", err)
		}
	}
	if signer == nil || signErr != nil {
		unsigned := manifest.Unsigned{}
		if signErr != nil {
			unsigned.Why = signErr.Error()
		}
		if signed, err = unsigned.Sign(ctx, statement); err != nil {
			return nil, event.Manifest{}, errors.Join(signErr, err)
		}
	}
	if signed.Lacks != nil {
		signErr, signed.Why = fmt.Errorf("sign manifest: %w", signed.Lacks), signed.Lacks.Error()
	}
	sum := sha256.Sum256(signed.File)
	return signed.File, event.Manifest{SHA256: hex.EncodeToString(sum[:]), Signed: string(signed.Mode), Detail: signed.Why}, signErr
}

// taskOf is the digest of the task, and where the command has it.
func taskOf(task string, argv []string) *event.Task {
	if task == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(task))
	t := &event.Task{SHA256: hex.EncodeToString(sum[:])}
	for i, arg := range argv {
		if strings.Contains(arg, task) {
			t.Args = append(t.Args, i)
		}
	}
	return t
}

// Refuse records a run that does not begin: problems are those of a policy that does not let it, or is none to begin under.
func Refuse(ctx context.Context, cfg Config, reason string, problems policy.Problems) (Result, error) {
	dir, err := cfg.Store.Create(runs.NewID(time.Now()))
	if err != nil {
		return Result{ExitCode: exitFailure}, err
	}
	defer dir.Close()
	r := &run{cfg: cfg, dir: dir, id: string(dir.ID)}
	Sealer{Signer: cfg.Signer, Policy: cfg.Policy, Task: cfg.Task}.Seal(ctx, dir)
	chain, err := dir.Events()
	if err != nil {
		return Result{Run: r.id, ExitCode: exitFailure}, err
	}
	if r.rec, err = event.NewRecorder(event.Config{Run: r.id, Handlers: []event.Handler{chain}}); err != nil {
		return Result{Run: r.id, ExitCode: exitFailure}, err
	}
	start := event.RunStarted{
		Contract: event.Contract, Runner: cfg.Version, Argv: slices.Clone(cfg.Argv), Project: cfg.Project, TTY: cfg.TTY,
		Policy:     event.PolicyRef{Path: cfg.PolicyFile, Origin: cfg.PolicyOrigin, CeilingDigest: cfg.CeilingDigest},
		Invocation: cfg.Invocation, Task: taskOf(cfg.Task, cfg.Argv),
	}
	if cfg.Policy != nil {
		start.Policy.Digest = cfg.Policy.Digest()
	}
	for _, p := range problems {
		start.Policy.Problems = append(start.Policy.Problems, p.Error())
	}
	r.rec.Emit(start)
	r.look(ctx)
	r.looked.Wait()
	s := r.rec.Finish(event.RunFinished{Outcome: event.Refused, ExitCode: cfg.RefusedExit, Reason: reason})
	err = errors.Join(r.rec.Err(), dir.Finish(s))
	s.Manifest = dir.Sealed()
	return Result{Run: r.id, Dir: dir.Dir(), ExitCode: cfg.RefusedExit, Summary: s}, err
}
