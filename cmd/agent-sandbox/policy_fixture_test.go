package main

import (
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

// scriptMakeRefused is "mkrefused ID PROJECT PROTO/TARGET[/TIMES]...": it leaves a run in the state directory that was refused
// these: dns/NAME, tcp/HOST:PORT, udp/HOST:PORT, or txt/NAME for a look-up of that type. kit/HOST:PORT and learned/HOST:PORT were reached.
func scriptMakeRefused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: mkrefused ID PROJECT PROTO/TARGET[/TIMES]...")
	}
	id, err := runs.ParseID(args[0])
	ts.Check(err)
	syscall.ForkLock.RLock() // as in mkrun
	defer syscall.ForkLock.RUnlock()
	store, err := runs.Open(filepath.Join(ts.Getenv("XDG_STATE_HOME"), "agent-sandbox", "runs"))
	ts.Check(err)
	defer store.Close()
	r, err := store.Create(id)
	ts.Check(err)
	defer r.Close()
	chain, err := r.Events()
	ts.Check(err)
	rec, err := event.NewRecorder(event.Config{Run: string(id), Handlers: []event.Handler{chain}})
	ts.Check(err)
	rec.Emit(event.RunStarted{Contract: event.Contract, Runner: "test", Argv: []string{"true"}, Project: ts.MkAbs(args[1])})
	for _, arg := range args[2:] {
		e, err := refusal(arg)
		ts.Check(err)
		rec.Emit(e)
	}
	ts.Check(r.Finish(rec.Finish(event.RunFinished{Outcome: event.Failure, ExitCode: 1})))
}

func refusal(arg string) (event.Event, error) {
	words := append(strings.Split(arg, "/"), "1")
	count, err := strconv.ParseUint(words[2], 10, 64)
	if err != nil {
		return nil, err
	}
	switch words[0] {
	case "dns":
		return event.NameRefused{Name: words[1], Type: "A", Count: count}, nil
	case "txt":
		return event.NameRefused{Name: words[1], Type: "TXT", Count: count}, nil
	}
	host, port, _ := strings.Cut(words[1], ":")
	n, err := strconv.ParseUint(port, 10, 16)
	switch words[0] {
	case "kit": // reached by an agent's kit
		return event.Connection{Name: host, Port: uint16(n), Outcome: event.ConnectionAllowed, Rule: host, Count: 1}, err
	case "learned": // reached while everything public was
		return event.Connection{Name: host, Port: uint16(n), Outcome: event.ConnectionAllowed, Rule: policy.EverythingPublic, Count: 1}, err
	}
	e := event.ConnectionRefused{Proto: words[0], Port: uint16(n), Reason: "no rule allows the host", Count: count}
	if _, notAddress := netip.ParseAddr(host); notAddress == nil {
		e.Address = host
	} else {
		e.Address, e.Name = "192.0.2.1", host
	}
	return e, err
}
