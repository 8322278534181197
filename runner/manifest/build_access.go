package manifest

import (
	"cmp"
	"maps"
	"slices"

	"github.com/org/agent-sandbox/runner/event"
)

func (b *builder) credentials() {
	leaks := map[string]uint64{}
	for _, l := range b.s.Leaks {
		leaks[l.Credential] += l.Count
	}
	for _, c := range b.s.Credentials {
		out := Credential{
			Name: b.text("credentials", c.Name), Source: c.Source, Deliver: c.Deliver, Hosts: b.texts("credentials", slices.Sorted(slices.Values(c.Hosts))),
			Requested: b.scope(c.Requested), Granted: b.scope(c.Granted), Broad: b.text("credentials", c.Broad),
			Renewed: int(c.Renewals), Expires: c.Expires, Revocation: string(c.Revoked), TokenSHA256: c.TokenSHA256,
			Broker: b.text("credentials", c.Broker), Identity: b.text("credentials", c.Identity), IssuanceID: b.text("credentials", c.IssuanceID), Leaks: leaks[c.Name],
		}
		if !c.Issued.IsZero() {
			out.Issued = &c.Issued
		}
		out.Age = ageOf(c.Age)
		for _, r := range c.Revocations {
			if r.Status == c.Revoked && out.RevocationDetail == "" {
				out.RevocationDetail = b.text("credentials", r.Detail)
			}
		}
		if u := c.Used; u != nil {
			out.Requests, out.Used = u.Requests, u.Permissions
		}
		b.p.Credentials = append(b.p.Credentials, out)
	}
	slices.SortFunc(b.p.Credentials, func(x, y Credential) int { return cmp.Compare(x.Name, y.Name) })
}

// ageOf is nil for a credential without a limit. A state that this version does not know is an unknown age.
func ageOf(a *event.CredentialAge) *CredentialAge {
	if a == nil {
		return nil
	}
	out := &CredentialAge{
		State: string(event.AgeUnknown), LimitNS: int64(a.Limit), Enforced: a.Enforced, Since: a.Since, AtLeast: a.AtLeast, Basis: a.Basis, Provenance: a.Provenance,
	}
	if a.State == event.AgeFresh || a.State == event.AgeOverdue {
		out.State = string(a.State)
	}
	return out
}

func (b *builder) scope(s *event.CredentialScope) *Scope {
	if s == nil {
		return nil
	}
	out := &Scope{Repositories: []ScopeRepository{}, Permissions: map[string]string{}, Push: b.texts("credentials", s.Push)}
	maps.Copy(out.Permissions, s.Permissions)
	for _, r := range bounded(b, "credentials", s.Repositories, 100) {
		out.Repositories = append(out.Repositories, ScopeRepository{ID: r.ID, Name: b.text("credentials", r.Name)})
	}
	return out
}

func (b *builder) egress() {
	n := b.s.Counts
	e := Egress{
		Captured: b.s.Measured != nil && b.s.Measured.Network.TCP, Connections: n.AllowedConnections, Failed: n.FailedConnections, Requests: n.Requests,
		Up: n.Up, Down: n.Down, RefusedConnections: n.RefusedConnections, RefusedNames: n.RefusedNames, RefusedRequests: n.RefusedRequests,
		Hosts: []Host{}, HostCount: b.s.HostCount, Refused: []Refusal{}, RefusedUnlisted: b.s.Unlisted.Connections + b.s.Unlisted.Names, Leaks: []Leak{},
	}
	for _, h := range b.s.Hosts {
		e.Hosts = append(e.Hosts, Host{
			Host: b.text("egress.hosts", h.Host), Port: h.Port, Rule: b.text("egress.hosts", h.Rule),
			Connections: h.Connections, Failed: h.Failed, Requests: h.Requests, Up: h.Up, Down: h.Down,
		})
	}
	slices.SortStableFunc(e.Hosts, func(x, y Host) int { return cmp.Or(cmp.Compare(x.Host, y.Host), cmp.Compare(x.Port, y.Port)) })
	for _, r := range b.s.Refused {
		e.Refused = append(e.Refused, Refusal{
			Proto: r.Proto, Host: b.text("egress.refused", cmp.Or(r.Name, r.Address)), Port: r.Port, Type: b.text("egress.refused", r.Type), Method: b.text("egress.refused", r.Method),
			Path: b.text("egress.refused", r.Path), Reason: b.text("egress.refused", r.Reason), Count: r.Count,
		})
	}
	slices.SortStableFunc(e.Refused, func(x, y Refusal) int {
		return cmp.Or(cmp.Compare(x.Host, y.Host), cmp.Compare(x.Port, y.Port), cmp.Compare(x.Proto, y.Proto), cmp.Compare(x.Type, y.Type), cmp.Compare(x.Method, y.Method), cmp.Compare(x.Path, y.Path))
	})
	for _, l := range b.s.Leaks {
		e.Leaks = append(e.Leaks, Leak{Credential: b.text("egress.leaks", l.Credential), Host: b.text("egress.leaks", l.Host), Count: l.Count})
	}
	slices.SortFunc(e.Leaks, func(x, y Leak) int {
		return cmp.Or(cmp.Compare(x.Credential, y.Credential), cmp.Compare(x.Host, y.Host))
	})
	b.p.Egress = e
}
