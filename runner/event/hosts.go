package event

import (
	"cmp"
	"slices"
)

// maxConnections bounds the connections that a Fold tells apart; it is above what a runner records.
const maxConnections = 8 << 10

// maxHosts bounds the hosts in a Summary; the counts beside them are complete.
const maxHosts = 100

// Host is what went to one host and port, over all connections that the policy allowed.
type Host struct {
	Host        string `json:"host"` // the name that the agent resolved, or the address that it dialled
	Port        uint16 `json:"port"`
	Rule        string `json:"rule,omitempty"`   // the rule that allowed the first connection, as an item of the policy file
	Via         string `json:"via,omitempty"`    // host:port of the proxy, if one was used
	Reason      string `json:"reason,omitempty"` // why the first of the failed ones failed
	Connections uint64 `json:"connections"`      // that were made
	Failed      uint64 `json:"failed"`           // that the policy allowed, and the host or the network did not
	Requests    uint64 `json:"requests"`         // of HTTP that was read
	Up          int64  `json:"up"`               // bytes from the agent
	Down        int64  `json:"down"`             // bytes to it
}

// hostKey is what makes two connections one Host.
type hostKey struct {
	host string
	port uint16
}

// connectionKey is what makes a record replace another.
type connectionKey struct {
	id      uint64
	host    hostKey
	outcome string
	rule    string
}

func (c Connection) hostKey() hostKey { return hostKey{cmp.Or(c.Name, c.Address), c.Port} }

func (c Connection) key() connectionKey {
	if c.ID != 0 {
		return connectionKey{id: c.ID}
	}
	return connectionKey{host: c.hostKey(), outcome: c.Outcome, rule: c.Rule}
}

// connections keeps the latest record of each.
type connections struct {
	latest map[connectionKey]Connection
	order  []connectionKey // of first record
}

// add takes a record. The bound is for a log that somebody else wrote.
func (cs *connections) add(c Connection) {
	key := c.key()
	if _, known := cs.latest[key]; !known {
		if len(cs.order) >= maxConnections {
			return
		}
		if cs.latest == nil {
			cs.latest = map[connectionKey]Connection{}
		}
		cs.order = append(cs.order, key)
	}
	cs.latest[key] = c
}

// sum fills in the hosts, those with the most bytes first, and the counts.
func (cs *connections) sum(s *Summary) {
	hosts := map[hostKey]*Host{}
	all := []*Host{}
	for _, key := range cs.order {
		c := cs.latest[key]
		if c.Outcome == ConnectionWasRefused {
			continue // counted among the refusals
		}
		h := hosts[c.hostKey()]
		if h == nil {
			h = &Host{Host: cmp.Or(c.Name, c.Address), Port: c.Port}
			hosts[c.hostKey()] = h
			all = append(all, h)
		}
		h.add(c)
		s.Counts.add(c)
	}
	slices.SortStableFunc(all, func(a, b *Host) int { return cmp.Compare(b.Up+b.Down, a.Up+a.Down) })
	s.HostCount = len(all)
	s.Hosts = make([]Host, min(len(all), maxHosts))
	for i := range s.Hosts {
		s.Hosts[i] = *all[i]
	}
}

func (h *Host) add(c Connection) {
	h.Rule, h.Via = cmp.Or(h.Rule, c.Rule), cmp.Or(h.Via, c.Via)
	if c.Outcome == ConnectionFailed {
		h.Failed += c.Count
		h.Reason = cmp.Or(h.Reason, c.Reason)
		return
	}
	h.Connections += c.Count
	h.Requests += c.Requests
	h.Up += c.Up
	h.Down += c.Down
}

func (n *Counts) add(c Connection) {
	if c.Outcome == ConnectionFailed {
		n.FailedConnections += c.Count
		return
	}
	n.AllowedConnections += c.Count
	n.Up += c.Up
	n.Down += c.Down
}
