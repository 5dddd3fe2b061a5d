package main

import (
	"runtime/debug"
	"testing"
)

// TestVersionIsKnown: whoever reports a fault names the version, however the program
// came to them.
func TestVersionIsKnown(t *testing.T) {
	const revision = "4472477aa0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5"
	clone := &debug.BuildInfo{
		Main:     debug.Module{Version: "v0.1.1-0.20260102030405-4472477aa0b1+dirty"},
		Settings: []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: revision}},
	}
	for _, c := range []struct {
		name            string
		version, commit string // by the linker
		info            *debug.BuildInfo
		known, from     string
	}{
		{"a release", "v1.2.3", revision, &debug.BuildInfo{}, "1.2.3", "4472477aa0b1"},
		{"a wheel", "1.2.3", revision, clone, "1.2.3", "4472477aa0b1"},
		{"an archive of the source", "1.2.3", "", &debug.BuildInfo{}, "1.2.3", ""},
		{"a clone", "", "", clone, "0.1.1-0.20260102030405-4472477aa0b1+dirty", "4472477aa0b1"},
		{"go install", "", "", &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, "1.2.3", ""},
		{"go run", "", "", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "(devel)", ""},
		{"no information", "", "", &debug.BuildInfo{}, "(devel)", ""},
	} {
		known, from := builtOf(c.version, c.commit, c.info)
		if known != c.known || from != c.from {
			t.Errorf("%s is %q of %q, want %q of %q", c.name, known, from, c.known, c.from)
		}
	}
}
