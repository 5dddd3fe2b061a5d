package main

import (
	"cmp"
	"runtime/debug"
	"strings"
)

// version and commit are set by the linker where the go command does not know them: in
// releases and wheels. A build in a clone, and go install of a version, tell them themselves.
var version, commit string

// versionText is the version without the v of its tag, as packages name it.
func versionText() string {
	known, _ := built()
	return known
}

// versionLine is the version and the commit, for --version.
func versionLine() string {
	known, from := built()
	if from == "" {
		return known
	}
	return known + " (commit " + from + ")"
}

// built returns the version, and the commit as short as git shows it, "" where nothing
// tells it: a module fetched under its tag has none.
func built() (known, from string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return builtOf(version, commit, info)
}

func builtOf(version, commit string, info *debug.BuildInfo) (known, from string) {
	known = strings.TrimPrefix(cmp.Or(version, info.Main.Version, "(devel)"), "v")
	from = commit
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			from = cmp.Or(from, s.Value)
		}
	}
	return known, from[:min(len(from), 12)]
}
