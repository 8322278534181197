//go:build docker

package image

import (
	"strings"
	"testing"
)

// TestAgentsRefused: a base that can't have the agents says what it lacks, and how to mend it.
func TestAgentsRefused(t *testing.T) {
	b := newBuilder(t)
	p := newProject(t, "FROM "+testImage()+"\nUSER root\nRUN rm -f /usr/bin/npm /usr/bin/apt-get\nUSER agent\n")
	in, err := ReadInputs(Source{File: p.dir + "/Dockerfile", Agents: npmKits(t)[:1]})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	_, err = b.Build(t.Context(), in)
	if err == nil || !strings.Contains(err.Error(), "the base has no npm, and no apt-get") || !strings.Contains(err.Error(), "hint: ") {
		t.Errorf("err = %v, want what the base lacks and the mend", err)
	}
}

// TestAgentsOffline: npm of the base is used as it is; what it may not fetch fails the build, and is not left out.
func TestAgentsOffline(t *testing.T) {
	b := newBuilder(t)
	p := newProject(t, "FROM "+testImage()+"\nUSER root\nRUN printf '#!/bin/sh\\nexit 7\\n' >/usr/bin/npm && chmod 755 /usr/bin/npm\nUSER agent\n")
	in, err := ReadInputs(Source{File: p.dir + "/Dockerfile", Agents: npmKits(t)[:1]})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if r, err := b.Build(t.Context(), in); err == nil {
		removeLater(t, b, r.Name)
		t.Errorf("built %s, though npm failed", r.Name)
	}
}
