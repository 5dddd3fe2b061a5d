package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/tensorpress/tensorpress/report"
)

const progressSchemaPath = "../../docs/progress.schema.json"

// TestSchemaOfProgress: the schema of --progress json has every field that a line has, and
// no other. With -update-schema it is written anew.
func TestSchemaOfProgress(t *testing.T) {
	s := &schema{object{}, map[string]string{}, map[string][]string{}}
	s.read(t, "../../report/progress.go")
	s.of(reflect.TypeFor[report.Progress]())
	want, err := json.MarshalIndent(object{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A line of tensorpress --progress json",
		"$ref": "#/$defs/Progress", "$defs": s.defs,
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *updateSchema {
		if err := os.WriteFile(progressSchemaPath, want, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(progressSchemaPath); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the type says, %v: go test ./cmd/tensorpress -run TestSchema -update-schema", progressSchemaPath, err)
	}
}

// TestProgressFitsTheSchema: whatever command prints lines, they are what the schema says,
// and the last one says how it ended.
func TestProgressFitsTheSchema(t *testing.T) {
	source, err := filepath.Abs("../../testdata/minilm.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(progressSchemaPath)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := jsonschema.NewCompiler().Compile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		state report.State
		phase report.Phase // of the end
		args  string
	}{
		{report.OK, report.Placing, "quantize " + source + " out.safetensors --layout comfy"},
		{report.OK, report.Placing, "quantize " + source + " hashed.safetensors --layout comfy --report r.json --measure"},
		{report.OK, report.Placing, "quantize " + source + " dynamic.safetensors --layout sdnq --dynamic"},
		{report.OK, report.Placing, "dequantize out.safetensors plain.safetensors"},
		{report.OK, report.Placing, "transcode dynamic.safetensors comfy.safetensors --layout comfy"},
		{report.OK, report.Placing, "migrate out.safetensors new.safetensors --quantization-metadata"},
		{report.OK, report.Placing, "join " + source + " joined.safetensors"},
		{report.OK, report.Measuring, "measure " + source},
		{report.OK, report.Measuring, "plan " + source + " --budget 60%"},
		{report.OK, report.Planning, "plan " + source},
		{report.OK, report.Verifying, "verify out.safetensors --source " + source},
		{report.OK, report.Comparing, "diff " + source + " " + source},
		{report.Failed, report.Comparing, "diff " + source + " out.safetensors"},
		{report.Failed, report.Verifying, "verify out.safetensors --source " + source + " --max-rel-mse 0"},
		{report.Failed, report.Planning, "verify nowhere.safetensors"},
		{report.Failed, report.Writing, "quantize " + source + " out.safetensors"},
	} {
		var out, told bytes.Buffer
		status := run(append(strings.Fields(c.args), "--progress", "json"), &out, &told)
		var p report.Progress
		for line := range strings.Lines(told.String()) {
			if !strings.HasPrefix(line, "{") {
				continue // a note
			}
			got, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
			if err == nil {
				err = lines.Validate(got)
			}
			p = report.Progress{}
			if err == nil {
				err = json.Unmarshal([]byte(line), &p)
			}
			if err != nil {
				t.Errorf("%s: %v", c.args, err)
			}
		}
		if p.State != c.state || p.Phase != c.phase || (p.State == report.OK) != (status == 0) || p.State == report.OK && p.Done != p.Total {
			t.Errorf("%s: ends with %+v and status %d", c.args, p, status)
		}
		if c.phase != report.Planning && c.state == report.OK && (p.Total == 0 || p.Read == 0) {
			t.Errorf("%s: has counted nothing: %+v", c.args, p)
		}
		if c.phase == report.Placing && c.state == report.OK && p.Written == 0 {
			t.Errorf("%s: has written nothing: %+v", c.args, p)
		}
	}
}

// TestWorkAddsUp: at the end, all work that was expected is done, and what is read and
// written is what the report says.
func TestWorkAddsUp(t *testing.T) {
	source, err := filepath.Abs("../../testdata/minilm.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	pipeline(t, "pipeline", source)
	for _, args := range []string{
		"quantize " + source + " out.safetensors --layout comfy --report a.json --measure",
		"quantize " + source + " dynamic.safetensors --layout sdnq --dynamic --report b.json",
		"quantize " + source + " svd.safetensors --layout sdnq --svd-rank 4 --report s.json",
		"quantize " + source + " budget.safetensors --layout sdnq --budget 60% --report c.json",
		"quantize pipeline folder --layout sdnq --report p.json",
		"quantize pipeline resumed --layout sdnq --resume --report g.json",
		"quantize pipeline parts --layout sdnq --part 1/1 --report h.json",
		"quantize pipeline parts --layout sdnq --part 1/1",
		"finish parts",
		"dequantize out.safetensors plain.safetensors --report d.json",
		"transcode dynamic.safetensors comfy.safetensors --layout comfy --report e.json",
		"join " + source + " joined.safetensors --report f.json",
		"plan " + source + " --budget 60%",
		"measure " + source,
		"verify out.safetensors --source " + source,
		"diff " + source + " out.safetensors",
		"diff " + source + " plain.safetensors",
		"diff out.safetensors dynamic.safetensors",
		"inspect out.safetensors --hash",
	} {
		w, root := newWatching(), newRoot()
		root.SetArgs(strings.Fields(args))
		root.SetOut(&bytes.Buffer{})
		root.SetErr(&bytes.Buffer{})
		if _, err := execute(w.within(t.Context()), root); err != nil && statusOf(err) != 4 {
			t.Errorf("%s: %v", args, err)
			continue
		}
		done, total := w.run.Work()
		if c := w.run.Counts(); max(done-total, total-done) > total/1000 || total == 0 || c.Read == 0 { // but small tensors of a layer
			t.Errorf("%s: %d of %d done, %d read", args, done, total, c.Read)
		}
		if _, _, written := strings.Cut(args, "--report"); written && !strings.Contains(args, "pipeline") {
			info, err := os.Stat(strings.Fields(args)[2])
			if c := w.run.Counts(); err != nil || c.Written != info.Size() {
				t.Errorf("%s: %d bytes written, %v", args, c.Written, err)
			}
		}
	}
}

// pipeline makes one of a model and a folder that is copied.
func pipeline(t *testing.T, dir, source string) {
	t.Helper()
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"model_index.json":        []byte(`{"_class_name": "XPipeline", "transformer": ["diffusers", "X"], "vae": ["diffusers", "AutoencoderKL"]}`),
		"transformer/config.json": []byte(`{"_class_name": "X"}`), "transformer/diffusion_pytorch_model.safetensors": text,
		"vae/config.json": []byte(`{"_class_name": "AutoencoderKL"}`), "vae/diffusion_pytorch_model.safetensors": text,
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}
