package engine

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
)

// strictSeccomp is the file as people read it: with a reason for every rule, and with a list of
// what is denied and why. Whatever it does not name is denied too.
//
//go:embed seccomp.json
var strictSeccomp []byte

// seccompProfile is what an engine reads of a profile. The field names are Docker's
// (https://docs.docker.com/engine/security/seccomp/), so the file also works as it is with
// `docker run --security-opt seccomp=seccomp.json`. An engine before 20.10.10 does not know
// errnoRet; runc then refuses to start the container, and nothing runs with a weaker profile.
type seccompProfile struct {
	DefaultAction   string        `json:"defaultAction"`
	DefaultErrnoRet uint          `json:"defaultErrnoRet"`
	ArchMap         []seccompArch `json:"archMap"`
	Syscalls        []seccompRule `json:"syscalls"`
}

type seccompArch struct {
	Architecture     string   `json:"architecture"`
	SubArchitectures []string `json:"subArchitectures"`
}

type seccompRule struct {
	Names    []string       `json:"names"`
	Action   string         `json:"action"`
	ErrnoRet *uint          `json:"errnoRet,omitempty"`
	Args     []seccompArg   `json:"args,omitempty"`
	Includes *seccompFilter `json:"includes,omitempty"`
	Excludes *seccompFilter `json:"excludes,omitempty"`
}

// seccompArg is a condition on one argument. For SCMP_CMP_MASKED_EQ, Value is the mask and ValueTwo
// the value that the masked argument has to have.
type seccompArg struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo,omitempty"`
	Op       string `json:"op"`
}

// seccompFilter says when a rule holds. The strict profile never asks for capabilities: what it
// denies, it denies to everybody.
type seccompFilter struct {
	Arches    []string `json:"arches,omitempty"`
	Caps      []string `json:"caps,omitempty"`
	MinKernel string   `json:"minKernel,omitempty"`
}

// StrictSeccomp is the seccomp profile of `seccomp: strict`, as compact JSON without the comments.
// Give it to the engine as the security option "seccomp=" + StrictSeccomp().
func StrictSeccomp() string {
	var p seccompProfile
	if err := json.Unmarshal(strictSeccomp, &p); err != nil {
		panic("bug: the embedded seccomp profile: " + err.Error())
	}
	compact, err := json.Marshal(p)
	if err != nil {
		panic("bug: the embedded seccomp profile: " + err.Error())
	}
	return string(compact)
}

// SeccompDigest names a profile, such as what [StrictSeccomp] returns, as "sha256:" and 64 hex digits.
func SeccompDigest(profile string) string {
	sum := sha256.Sum256([]byte(profile))
	return "sha256:" + hex.EncodeToString(sum[:])
}
