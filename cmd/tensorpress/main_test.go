package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/tensorpress/tensorpress"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tensorpress": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each command otherwise
			testdata, err := filepath.Abs("../../testdata")
			if err != nil {
				return err
			}
			e.Setenv("TESTDATA", testdata)
			return copyFile(e.WorkDir+"/minilm.safetensors", "../../testdata/minilm.safetensors")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mksafetensors": mksafetensors,
			"status":        status,
			"interrupt":     interrupt,
			"flip":          flip,
			"page":          runPage,
			"shown":         shown,
			"truncate":      truncate,
			"files":         holds,
			"json":          jsonQuery,
			"hub":           hub,
			"web":           web,
			"store":         store,
			"stored":        stored,
		},
	})
}

func TestStatusOf(t *testing.T) {
	ran := func(err error) error { return &runError{fmt.Errorf("doing it: %w", err)} }
	tests := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{ran(errors.New("disk full")), 1},
		{errors.New("unknown flag"), 2},
		{ran(tensorpress.ErrUsage), 2},
		{ran(tensorpress.ErrSource), 3},
		{ran(errVerify), 4},
		{ran(context.Canceled), 130},
	}
	for _, tt := range tests {
		if got := statusOf(tt.err); got != tt.want {
			t.Errorf("statusOf(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestMessageHidesTheStack(t *testing.T) {
	err := &runError{errors.New("internal error: index out of range\ngoroutine 1 [running]:\nmain.go:1")}
	t.Setenv("TENSORPRESS_DEBUG", "")
	if got, want := message(newRoot(), err), "error: internal error: index out of range (TENSORPRESS_DEBUG=1 shows where)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	t.Setenv("TENSORPRESS_DEBUG", "1")
	if got, want := message(newRoot(), err), "error: "+err.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"plain ≥ 1":           "plain ≥ 1",
		"two\nlines\n":        "two; lines",
		"a\x1b[31mred\r\t":    `a\x1b[31mred\r\t`,
		"a\x9b31m\xffé\uFFFD": `a\x9b31m\xffé` + "\uFFFD",
	} {
		if got := oneLine(text); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1234": 1234, "12b": 12, "1k": 1000, "1KiB": 1024, "64MiB": 64 << 20, "256 MiB": 256 << 20,
		"5GB": 5e9, "1.5G": 1.5e9, "1.5gib": 3 << 29, "2T": 2e12, "1TiB": 1 << 40, ".5k": 500,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1e3", "0x10", "inf", "nan", "1.2.3", "1 2", "5GBB", "5iB", "9e9TiB", "99999999999TiB", "1_000", "."} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		}
	}
}

// TestReadingEndsWithItsContext: a read that does not return, as of a disk that
// is far away, must not keep Ctrl-C from ending a command.
func TestReadingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	started, never := make(chan bool), make(chan bool)
	defer close(never)
	go func() {
		<-started
		cancel()
	}()
	_, err := reading(ctx, func() (int, error) {
		close(started)
		<-never
		return 1, nil
	})
	if statusOf(&runError{err}) != interrupted {
		t.Errorf("got %v, want it to be interrupted", err)
	}
}

func TestReadingReturnsWhatWasRead(t *testing.T) {
	if got, err := reading(t.Context(), func() (int, error) { return 7, nil }); got != 7 || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := reading(t.Context(), func() (int, error) { panic("no") }); err == nil || !strings.HasPrefix(err.Error(), "internal error: no") {
		t.Errorf("got %v, want the panic as an error", err)
	}
}

// TestNotesComeLast: on a terminal, where both outputs meet, a long table must not
// push a note out of sight, nor the summary follow what ComfyUI will not do.
func TestNotesComeLast(t *testing.T) {
	const source = "../../testdata/minilm.safetensors"
	for _, args := range [][]string{{"plan", source}, {"quantize", source, filepath.Join(t.TempDir(), "out.safetensors")}} {
		var both strings.Builder
		args = append(args, "--dtype", "uint4")
		if status := run(args, &both, &both); status != 0 {
			t.Fatalf("%v: status %d: %s", args, status, &both)
		}
		lines := strings.Split(strings.TrimSpace(both.String()), "\n")
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, "tensorpress: note: stock ComfyUI does not load uint4 layers") {
			t.Errorf("the last line of %s is %q, want what to do about ComfyUI", args[0], last)
		}
	}
}
