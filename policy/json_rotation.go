package policy

import "time"

type planRotation struct {
	Token    string      `json:"token,omitempty"`
	Identify *planStep   `json:"identify,omitempty"`
	Create   *planStep   `json:"create,omitempty"`
	Prove    *planStep   `json:"prove,omitempty"`
	Store    []planStore `json:"store"`
	Revoke   *planStep   `json:"revoke,omitempty"`
}

type planStep struct {
	Command []string          `json:"command,omitempty"`
	Request string            `json:"request,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	Value   string            `json:"value,omitempty"`
	ID      string            `json:"id,omitempty"`
}

type planStore struct {
	GitHub       string   `json:"github,omitempty"`
	Repository   string   `json:"repository,omitempty"`
	Environment  string   `json:"environment,omitempty"`
	Organization string   `json:"organization,omitempty"`
	Vault        string   `json:"vault,omitempty"`
	Address      string   `json:"address,omitempty"`
	File         string   `json:"file,omitempty"`
	Command      []string `json:"command,omitempty"`
	Token        string   `json:"token,omitempty"`
}

func planRotationOf(r Rotation) *planRotation {
	if len(r.Store) == 0 { // every rotation has one
		return nil
	}
	return &planRotation{
		Token: r.Token.String(), Identify: planStepOf(r.Identify), Create: planStepOf(r.Create), Prove: planStepOf(r.Prove),
		Store: convert(r.Store, planStoreOf), Revoke: planStepOf(r.Revoke),
	}
}

func planStepOf(s RotationStep) *planStep {
	if s.IsZero() {
		return nil
	}
	out := &planStep{Command: s.Command, Headers: s.Headers, Body: s.Body, Value: s.Value, ID: s.ID}
	if s.Request.URL != "" {
		out.Request = s.Request.Method + " " + s.Request.URL
	}
	return out
}

func planStoreOf(s KeyStore) planStore {
	return planStore{s.GitHub, s.Repository, s.Environment, s.Organization, s.Vault, s.Address, s.File, s.Command, s.Token.String()}
}

func optionalDate(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.DateOnly)
}
