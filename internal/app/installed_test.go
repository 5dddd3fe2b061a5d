package app

import (
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/codec"
)

// TestReleases: a release is compared by its numbers, not as text.
func TestReleases(t *testing.T) {
	for _, tt := range []struct {
		release, since string
		want           bool
	}{
		{"0.27.0", "0.27.0", true}, {"0.26.9", "0.27.0", false}, {"0.100.0", "0.27.0", true}, {"1", "0.27.0", true}, {"0.27", "0.27.0", true},
		{"0.33.0", "> 0.33.0", false}, {"0.33.1", "> 0.33.0", true}, {"0.34.0", "> 0.33.0", true}, {"0.9.0", "0.8.0", true},
		{"6.14.0a1", "6.14", true}, {"6.14.0-alpha", "6.14", true}, {"6.13.9", "6.14", false}, {"0.0.1", codec.AnyRelease, true},
	} {
		if got := loadedBy(tt.release, tt.since); got != tt.want {
			t.Errorf("%s loads what came with %s: %v", tt.release, tt.since, got)
		}
	}
}

// TestOutputs: what is said of an installed release follows the table of formats.
func TestOutputs(t *testing.T) {
	for _, a := range All() {
		if a.Title == "" || (a.Package == "") != (len(a.Marks) > 0) {
			t.Errorf("%s is neither a package nor a folder, or both", a.Name)
		}
		if a.Needs != "" && !strings.Contains(a.Outputs("1.0", false), "pip install "+a.Needs) {
			t.Errorf("%s without %s: %s", a.Name, a.Needs, a.Outputs("1.0", false))
		}
	}
	comfyui := byName(t, "comfyui")
	for _, f := range codec.Formats() {
		if f.ComfyUI == "" || f.ComfyUI == codec.AnyRelease {
			continue
		}
		without := comfyui.Outputs("0.0.1", false)
		if strings.Contains(without, f.Name) {
			t.Errorf("an old ComfyUI: %s", without)
		}
	}
	for release, want := range map[string]string{
		"0.33.0": "the comfy layout, every format but awq_w4a16", "0.34.0": "the comfy layout, every format", "0.0.1": "the comfy layout, float8_e4m3fn, float8_e5m2",
		"": "the comfy layout, by its release",
	} {
		if got := comfyui.Outputs(release, false); got != want {
			t.Errorf("ComfyUI %s: %s, want %s", release, got, want)
		}
	}
	if got := byName(t, "invokeai").Outputs("6.14.0", false); !strings.HasPrefix(got, "the sdnq layout, ") || !strings.Contains(got, "uint4") || strings.Contains(got, "int6") {
		t.Errorf("InvokeAI: %s", got)
	}
}
