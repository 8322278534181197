package rotate

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

const day = 24 * time.Hour

func clock() time.Time { return time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC) }

// An age is what the best basis tells, unless the secret was there before; and one that is not known is never fresh.
func TestAge(t *testing.T) {
	ago := func(days int) time.Time { return clock().Add(-time.Duration(days) * day) }
	date := func(days int) string { return ", rotated: " + ago(days).Format(time.DateOnly) }
	for name, tt := range map[string]struct {
		keys  string // of the policy
		entry Entry
		store time.Time
		want  string // state, days, at least, basis, provenance
	}{
		"no limit":                      {"", Entry{FirstSeen: ago(400)}, time.Time{}, "unscheduled 400 true first-seen observed"},
		"nobody knows":                  {", rotate: 30d", Entry{}, time.Time{}, "unknown - false  unknown"},
		"seen for the first time":       {", rotate: 30d", Entry{FirstSeen: ago(0)}, time.Time{}, "unknown 0 true first-seen observed"},
		"seen lately":                   {", rotate: 30d", Entry{FirstSeen: ago(29)}, time.Time{}, "unknown 29 true first-seen observed"},
		"seen long ago":                 {", rotate: 30d", Entry{FirstSeen: ago(30)}, time.Time{}, "overdue 30 true first-seen observed"},
		"made here":                     {", rotate: 30d", Entry{FirstSeen: ago(29), Made: ago(29)}, time.Time{}, "fresh 29 false rotated observed"},
		"made here, long ago":           {", rotate: 30d", Entry{FirstSeen: ago(30), Made: ago(30)}, time.Time{}, "overdue 30 false rotated observed"},
		"declared":                      {", rotate: 30d" + date(3), Entry{}, time.Time{}, "fresh 3 false declared asserted"},
		"declared, long ago":            {", rotate: 30d" + date(31), Entry{}, time.Time{}, "overdue 31 false declared asserted"},
		"declared, in the future":       {", rotate: 30d" + date(-3), Entry{}, time.Time{}, "unknown - false  unknown"},
		"declared today, elsewhere":     {", rotate: 30d" + date(-1), Entry{}, time.Time{}, "fresh 0 false declared asserted"},
		"declared, but was there":       {", rotate: 30d" + date(3), Entry{FirstSeen: ago(40)}, time.Time{}, "overdue 40 true first-seen observed"},
		"declared, but was there since": {", rotate: 30d" + date(3), Entry{FirstSeen: ago(10)}, time.Time{}, "unknown 10 true first-seen observed"},
		"stored":                        {", rotate: 30d" + date(3), Entry{}, ago(5), "fresh 5 false store observed"},
		"stored again, but was there":   {", rotate: 30d", Entry{FirstSeen: ago(31)}, ago(5), "overdue 31 true first-seen observed"},
		"made here, and stored later":   {", rotate: 30d", Entry{FirstSeen: ago(9), Made: ago(9)}, ago(5), "fresh 9 false rotated observed"},
		"revoked":                       {", rotate: 30d", Entry{FirstSeen: ago(3), Made: ago(3), Revoked: ago(1)}, time.Time{}, "overdue 3 false rotated observed"},
	} {
		c := loadCredential(t, "version: 1\ncredentials:\n  model: {from: 'env:K', host: api.example.com"+tt.keys+"}\n")
		cfg := configOf(t, t.TempDir(), "", nil)
		cfg.Now = clock
		value := secret.New("sk-test-0123456789")
		if tt.entry != (Entry{}) {
			if err := cfg.Book.Note(value, "model", clock(), func(e *Entry) { *e = tt.entry }); err != nil {
				t.Fatal(err)
			}
		}
		a, err := cfg.age(c, value, tt.store)
		days := "-"
		if a.Since != nil {
			days = fmt.Sprint(int(clock().Sub(*a.Since) / day))
		}
		if got := fmt.Sprintf("%s %s %v %s %s", a.State, days, a.AtLeast, a.Basis, a.Provenance); got != tt.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	w := newWorld(t, "file")
	delete(w.env, "VAULT_TOKEN")
	report, err := w.config().Report(t.Context(), []policy.Credential{w.credential()})
	if err != nil {
		t.Fatal(err)
	}
	s := report.Credentials[0]
	if report.Overdue != 1 || s.State != event.AgeOverdue || s.Basis != basisStore || s.Provenance != observed || len(s.Stores) != 5 || s.Stores[3].Detail != "VAULT_TOKEN is not set" {
		t.Errorf("with GitHub's date: %+v", s)
	}
	for _, name := range []string{"GH_TOKEN", "ADMIN"} {
		delete(w.env, name)
	}
	src := strings.Replace(strings.Replace(w.recipe(), "        - {file: ./key}\n", "", 1), "file:./key", "env:NONE", 1)
	w.source = "env"
	c := loadCredential(t, src)
	s, err = w.config().status(t.Context(), c)
	if err != nil || s.State != event.AgeUnknown || s.Provenance != unknown || s.AgeSecs != nil || !strings.Contains(s.Detail, "GH_TOKEN is not set") {
		t.Errorf("without tokens and without the key: %+v, %v", s, err)
	}
	w.noSecrets(fmt.Sprintf("%+v", report))
}

func TestBook(t *testing.T) {
	dir := t.TempDir()
	b, err := OpenBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	v := secret.New("sk-test-0123456789")
	for _, days := range []int{0, 1, 2} {
		if err := b.Note(v, "model", clock().Add(time.Duration(days)*day), nil); err != nil {
			t.Fatal(err)
		}
	}
	again, err := OpenBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := again.Entry(v); err != nil || !e.FirstSeen.Equal(clock()) || e.Name != "model" {
		t.Errorf("the entry is %+v, %v", e, err)
	}
	other, err := OpenBook(t.TempDir())
	if err != nil || other.Fingerprint(v) == b.Fingerprint(v) {
		t.Errorf("another machine has the same fingerprint: %v", err)
	}
	if e, err := again.Entry(secret.New("sk-test-other")); err != nil || e != (Entry{}) {
		t.Errorf("another secret has %+v, %v", e, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if info, _ := e.Info(); err != nil || strings.Contains(string(content), "sk-test") || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %q %v", e.Name(), info.Mode(), content, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, bookKey), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBook(dir); err == nil {
		t.Error("a damaged key was taken")
	}
}

// The book is bounded: what was not touched for the longest time goes.
func TestBookIsBounded(t *testing.T) {
	dir := t.TempDir()
	b, err := OpenBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	old := clock()
	for i := range maxEntries {
		name := filepath.Join(dir, fmt.Sprintf("%04d%s", i, entryType))
		if err := os.WriteFile(name, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, old, old.Add(time.Duration(i+1)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Note(secret.New("sk-test-0123456789"), "model", clock(), nil); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(dir, "*"+entryType))
	if err != nil || len(all) != maxEntries {
		t.Errorf("%d entries, %v", len(all), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "0000"+entryType)); err == nil {
		t.Error("the oldest entry is still there")
	}
}
