package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
)

// TestBudgetPage: every command of the page does what it is there for.
func TestBudgetPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/budget.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := filepath.Abs("../../testdata/minilm.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := copyFile("model.safetensors", source); err != nil {
		t.Fatal(err)
	}
	commands := pageCommands(string(page))
	if len(commands) < 8 {
		t.Errorf("only %d commands were found", len(commands))
	}
	for _, line := range commands {
		words, err := shellWords(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		var out, problems bytes.Buffer
		if status := run(words[1:], &out, &problems); status != 0 {
			t.Errorf("%s: status %d: %s", line, status, &problems)
		}
	}
	same, err := os.ReadFile("a.safetensors")
	if err != nil || len(same) > 1_600_000 {
		t.Fatal(len(same), err)
	}
	if again, err := os.ReadFile("b.safetensors"); err != nil || !bytes.Equal(same, again) {
		t.Error("the lock makes another file", err)
	}
}

// FuzzMeasurement: whatever a file holds, it is refused in a line, or a budget is solved
// with it, even where it is said to be of the source.
func FuzzMeasurement(f *testing.F) {
	source, err := filepath.Abs("../../testdata/minilm.safetensors")
	if err != nil {
		f.Fatal(err)
	}
	o := tensorpress.Options{}
	if o.Menu, err = tensorpress.ParseMenu("nvfp4,int8_tensorwise,keep"); err != nil {
		f.Fatal(err)
	}
	measured, err := tensorpress.Measure(f.Context(), files.Dir(source), o)
	if err != nil {
		f.Fatal(err)
	}
	whole, err := json.Marshal(measured)
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{
		string(whole), strings.ReplaceAll(string(whole), "0.00", "-1"), strings.ReplaceAll(string(whole), `"nvfp4"`, `"int8_tensorwise"`),
		`{"measurement":1,"menu":[{"name":"int8_tensorwise","settings":"int8_tensorwise"}],"layers":[{"name":"a","choices":[{"entry":"int8","rel_mse":1e-5,"bytes":3}]}]}`,
		`{"measurement":1,"menu":[{}],"layers":null}`, `{"measurement":-1}`, `[]`, `{"measurement":1,"menu":[{"settings":"x=\u0000"}]}`, "",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMeasurement([]byte(text))
		if err != nil {
			return
		}
		m.Measurement, m.Fingerprint, m.Layout = measured.Measurement, measured.Fingerprint, measured.Layout
		r, err := tensorpress.Plan(t.Context(), files.Dir(source), nil, tensorpress.Options{BudgetShare: 0.6, Measured: m})
		switch {
		case err == nil && r.Budget.Chosen.Bytes > r.Budget.Bytes:
			t.Errorf("%s: %+v", text, r.Budget.Chosen)
		case err != nil && !errors.Is(err, tensorpress.ErrUsage) && !errors.Is(err, tensorpress.ErrSource):
			t.Errorf("%s: %v", text, err)
		}
	})
}
