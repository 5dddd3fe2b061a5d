package main

import (
	"strings"
	"testing"
)

// TestWithoutSecrets: what gives access to an address is in no message, whoever says it, and
// all else of a text stays.
func TestWithoutSecrets(t *testing.T) {
	for text, want := range map[string]string{
		"":                "",
		"a://":            "a://",
		"no address? me@": "no address? me@",
		"https://me:SECRET@h:80/a/x.safetensors?sig=SECRET: no such file or directory":       "https://h:80/a/x.safetensors: no such file or directory",
		"https://h/x?sig=SECRET, s3://b/k and (gs://b/y?k=SECRET)":                           "https://h/x, s3://b/k and (gs://b/y)",
		`"https://me:SEC/RET@h/x" and hf://org/m@refs/pr/1/x: hf://hf_SECRET@org/m`:          `"https://h/x" and hf://org/m@refs/pr/1/x: hf://org/m`,
		"https://S@ECRET@h/pkg@1.0/x":                                                        "https://h/pkg@1.0/x",
		"https://h:80/pkg@1.0/x":                                                             "https://h:80/pkg@1.0/x",
		"an address that gives access is needed: https://USER:PASSWORD@HOST/… or one signed": "an address that gives access is needed: https://USER:PASSWORD@HOST/… or one signed",
	} {
		if got := withoutSecrets(text); got != want {
			t.Errorf("%s: became %s, want %s", text, got, want)
		}
	}
}

// TestNoSecretsInMessages: nor where an address is given for what is a path, or for two.
func TestNoSecretsInMessages(t *testing.T) {
	t.Chdir(t.TempDir())
	mkfolder(t, "m", 1, 8, 8)
	address := "http://me:SECRET@127.0.0.1:1/x.safetensors?sig=SECRET"
	for _, args := range [][]string{
		{"--lora", address}, {"--importance", address}, {"--recipe", address}, {"--config", address}, {"--report", address}, {"--metrics", address},
		{"--budget", "50%", "--measured", address}, {"--outputs", address}, {"--layer-config", address}, {"--dtype", address},
	} {
		cmd, printed := program(t, append([]string{"quantize", "m", "out"}, args...)...)
		if err := cmd.Run(); err == nil || strings.Contains(printed.String(), "SECRET") {
			t.Errorf("%q: %v: %s", args, err, printed)
		}
	}
}
