package bundle

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// weights is a file with a weight of 4 × 8 values and, where quantized, its scale.
func weights(t *testing.T, quantized bool, metadata map[string]string) string {
	t.Helper()
	tensors := []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{4, 8}}}
	if quantized {
		tensors = []safetensors.Tensor{
			{Name: "a.weight", Dtype: safetensors.I8, Shape: []int{4, 8}}, {Name: "a.weight_scale", Dtype: safetensors.F32, Shape: []int{4, 1}},
			{Name: "a.comfy_quant", Dtype: safetensors.U8, Shape: []int{29}},
		}
	}
	h, err := safetensors.NewHeader(tensors, metadata)
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, h.FileSize()-h.DataStart)
	if quantized {
		at, _ := h.Lookup("a.comfy_quant")
		copy(body[at.Offset:], `{"format": "int8_tensorwise"}`)
	}
	return string(h.Encode()) + string(body)
}

// tree is a source with those files, which lie on disk or in a store.
func tree(t *testing.T, onDisk bool, content map[string]string) source.Source {
	t.Helper()
	if !onDisk {
		m := fstest.MapFS{}
		for name, text := range content {
			m[name] = &fstest.MapFile{Data: []byte(text)}
		}
		return source.Of(t.Context(), files.FS(m))
	}
	dir := t.TempDir()
	for name, text := range content {
		write(t, filepath.Join(dir, name), text)
	}
	return source.Path(dir)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// everywhere runs a test on disk and in a store.
func everywhere(t *testing.T, f func(t *testing.T, onDisk bool)) {
	t.Run("on disk", func(t *testing.T) { f(t, true) })
	t.Run("in a store", func(t *testing.T) { f(t, false) })
}

const index = `{"_class_name": "P", "transformer": ["a", "B"], "text_encoder": ["a", "B"], "vae": ["a", "B"], "scheduler": ["a", "B"], "../up": ["a", "B"], "gone": ["a", "B"]}`

func pipeline(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"model_index.json": index,
		"transformer/diffusion_pytorch_model.safetensors": weights(t, false, nil),
		"text_encoder/model.safetensors":                  weights(t, true, nil),
		"vae/diffusion_pytorch_model.safetensors":         weights(t, false, nil),
		"scheduler/scheduler_config.json":                 `{}`,
		"transformer/quant_log.csv":                       "a,b",
		"transformer/recipe.yaml":                         "GPTQModifier: 1",
		"text_encoder/recipe.yaml":                        "flour: 1",
		"text_encoder/other.safetensors":                  weights(t, false, nil),
		"stray/model.safetensors":                         weights(t, false, nil),
	}
}

// TestPipelinesHaveComponents: transformers and text encoders are models, all else is
// copied, and weights that nothing describes are left out and said.
func TestPipelinesHaveComponents(t *testing.T) {
	everywhere(t, func(t *testing.T, onDisk bool) {
		b, err := ReadModels(tree(t, onDisk, pipeline(t)), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var folders []string
		for _, one := range b.Models {
			folders = append(folders, one.Folder)
			one.Plan = &plan.Plan{BytesIn: 3, BytesOut: 2}
		}
		if !slices.Equal(folders, []string{"transformer", "text_encoder"}) || !b.IsPipeline() {
			t.Fatalf("models %v", folders)
		}
		if b.BytesIn() != 6 || b.BytesOut() != 4 {
			t.Errorf("%d bytes in, %d out", b.BytesIn(), b.BytesOut())
		}
		if err := b.ListOthers("out", false); err != nil {
			t.Fatal(err)
		}
		if want := []string{"model_index.json", "scheduler/scheduler_config.json", "vae/diffusion_pytorch_model.safetensors"}; !slices.Equal(b.Others.Files, want) {
			t.Errorf("copied are %v, want %v", b.Others.Files, want)
		}
		notes := strings.Join(slices.Concat(b.Models[0].Plan.Notes, b.Models[1].Plan.Notes, LeftOut(b.Others)), "\n")
		for _, want := range []string{"quant_log.csv describes how", "recipe.yaml describes how", "1 file of weights that the output does not describe is left out", "other.safetensors", "stray/model.safetensors"} {
			if !strings.Contains(notes, want) {
				t.Errorf("no note has %q:\n%s", want, notes)
			}
		}
		l := &Listing{}
		for _, one := range b.Models {
			if err := CopyOthers(t.Context(), l.In(one.Folder), one); err != nil {
				t.Fatal(err)
			}
		}
		if want := []string{"text_encoder/recipe.yaml"}; !slices.Equal(l.Names(), want) || l.Bytes != 8 {
			t.Errorf("beside the models %v are copied, %d bytes, want %v", l.Names(), l.Bytes, want)
		}
		if err := b.Unchanged(); err != nil {
			t.Error(err)
		}
		one := b.Models[0]
		if one.Named("x") != "transformer/x" || one.Note("x") != "transformer: x" || (&Model{}).Named("x")+(&Model{}).Note("x") != "xx" {
			t.Error("a name or a note does not say of which component it is")
		}
	})
}

// TestDecidedModels: the components for which there is something to do are opened, and
// errors say of which one they are.
func TestDecidedModels(t *testing.T) {
	everywhere(t, func(t *testing.T, onDisk bool) {
		s, some := tree(t, onDisk, pipeline(t)), &plan.Plan{}
		b, err := ReadDecided(s, "out", false, func(one *Model) error {
			if one.Folder == "vae" {
				one.Plan = some
			}
			return nil
		})
		if err != nil || len(b.Models) != 1 || b.Models[0].Folder != "vae" {
			t.Fatalf("%v, %v", b, err)
		}
		b.Close()
		if _, err = ReadDecided(s, "", false, func(*Model) error { return nil }); !errors.Is(err, ErrNothingDecided) || !errors.Is(err, usage.ErrSource) {
			t.Errorf("nothing to do: %v", err)
		}
		_, err = ReadDecided(s, "x.safetensors", false, func(one *Model) error { one.Plan = some; return nil })
		if !errors.Is(err, usage.Err) {
			t.Errorf("a pipeline in a file: %v", err)
		}
		broken := errors.New("broken")
		if _, err = ReadDecided(s, "", false, func(*Model) error { return broken }); !errors.Is(err, broken) || !strings.Contains(err.Error(), "transformer: ") {
			t.Errorf("the component is not named: %v", err)
		}
	})
}

// TestLikePipeline: where another pipeline's settings are taken, the components are
// those that are quantized there.
func TestLikePipeline(t *testing.T) {
	everywhere(t, func(t *testing.T, onDisk bool) {
		s := tree(t, onDisk, pipeline(t))
		b, err := ReadModels(s, &s)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if len(b.Models) != 1 || b.Models[0].Folder != "text_encoder" || b.Models[0].Like == nil {
			t.Errorf("models %+v", b.Models)
		}
		plain := pipeline(t)
		plain["text_encoder/model.safetensors"] = weights(t, false, nil)
		other := tree(t, onDisk, plain)
		if _, err := ReadModels(s, &other); !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "no component of it is quantized") {
			t.Errorf("like a plain pipeline: %v", err)
		}
		plain["text_encoder/model.safetensors"] = "no weights" // whoever reads them says why
		other = tree(t, onDisk, plain)
		if b, err := ReadModels(s, &other); err != nil || len(b.Models) != 1 {
			t.Errorf("like a damaged one: %v", err)
		} else {
			b.Close()
		}
	})
}

// TestSourcesThatAreRefused: the error is the source's, and names what is wrong.
func TestSourcesThatAreRefused(t *testing.T) {
	everywhere(t, func(t *testing.T, onDisk bool) {
		for want, content := range map[string]map[string]string{
			"model_index.json":     {"model_index.json": "{", "transformer/model.safetensors": weights(t, false, nil)},
			"no component that is": {"model_index.json": index, "vae/model.safetensors": weights(t, false, nil)},
			"text_encoder":         {"model_index.json": index, "text_encoder/model.safetensors": "no weights"},
			"no .safetensors":      {"config.json": "{}"},
		} {
			b, err := ReadModels(tree(t, onDisk, content), nil)
			if !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, %v", want, b, err)
			}
		}
		if _, err := ModelsOf(tree(t, onDisk, map[string]string{"model_index.json": index, "vae/config.json": "{}"})); err == nil || !strings.Contains(err.Error(), "no component of the pipeline holds") {
			t.Errorf("a pipeline without weights: %v", err)
		}
		if models, err := ModelsOf(tree(t, onDisk, pipeline(t))); err != nil || !slices.Equal(models, []string{"transformer", "text_encoder", "vae"}) {
			t.Errorf("models %v, %v", models, err)
		}
	})
}

// TestModelsAreRead: with the layers that they hold, and an error where one cannot be.
func TestModelsAreRead(t *testing.T) {
	everywhere(t, func(t *testing.T, onDisk bool) {
		for name, c := range map[string]struct {
			text   string
			layers int
		}{"plain": {weights(t, false, nil), 0}, "quantized": {weights(t, true, nil), 1}} {
			opened, err := checkpoint.Open(tree(t, onDisk, map[string]string{"model.safetensors": c.text}))
			if err != nil {
				t.Fatal(err)
			}
			m, err := ReadModel(opened, nil)
			if err != nil || len(m.Layers) != c.layers {
				t.Errorf("%s: %+v, %v", name, m, err)
			}
			gone := tree(t, onDisk, nil).In("gone")
			if _, err := ReadModel(opened, &gone); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: a source that is not there: %v", name, err)
			}
			opened.Close()
		}
		damaged := weights(t, false, map[string]string{layout.ConfigKey: "{"})
		opened, err := checkpoint.Open(tree(t, onDisk, map[string]string{"model.safetensors": damaged}))
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		if _, err := ReadModel(opened, nil); !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "SDNQ config") {
			t.Errorf("a config that is cut off: %v", err)
		}
	})
}

// TestClassesOf: configs of diffusers name one, those of transformers a list.
func TestClassesOf(t *testing.T) {
	for text, want := range map[string][]string{
		`{"_class_name": "A", "architectures": ["B"]}`: {"A"}, `{"architectures": ["B", 3, "C"]}`: {"B", "C"},
		`{"_class_name": 3}`: nil, `{}`: nil, `{"architectures": "B"}`: nil,
	} {
		config, err := pyjson.ParseObject([]byte(text))
		if got := ClassesOf(config); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

// TestModelConfigsAreWritten: the SDNQ config goes into the model's own, or into a file
// of its own where there is none; what has nothing to say of it stays byte for byte.
func TestModelConfigsAreWritten(t *testing.T) {
	const plain, quantized = "{\"a\":  1}", `{"a": 1, "quantization_config": {"quant_method": "other"}}`
	config := sdnqconfig.Default()
	for _, c := range []struct {
		model  string
		config *sdnqconfig.Config
		file   string // that is written, "" for none
		has    []string
	}{
		{"", nil, "", nil},
		{"", config, layout.ConfigFile, []string{"weights_dtype"}},
		{plain, nil, ModelConfig, []string{plain}},
		{plain, config, ModelConfig, []string{`"a": 1`, "quantization_config", "weights_dtype"}},
		{quantized, nil, ModelConfig, []string{`"a": 1`}},
		{quantized, config, ModelConfig, []string{"weights_dtype"}},
	} {
		content := map[string]string{"model.safetensors": weights(t, false, nil)}
		if c.model != "" {
			content[ModelConfig] = c.model
		}
		opened, err := checkpoint.Open(tree(t, false, content))
		if err != nil {
			t.Fatal(err)
		}
		into := &memory{files: map[string]string{}}
		out, err := Begin(t.Context(), into, stage.Output{})
		if err == nil {
			err = WriteModelConfig(out.In(""), opened, &plan.Plan{Config: c.config, Files: []plan.File{{Name: "model.safetensors"}}})
		}
		if err != nil {
			t.Fatal(err)
		}
		text, ok := into.files[c.file]
		if len(into.files) > 1 || ok != (c.file != "") || strings.Contains(text, "other") {
			t.Errorf("%q: wrote %v", c.model, into.files)
		}
		for _, want := range c.has {
			if !strings.Contains(text, want) {
				t.Errorf("%q: %s holds %s, and no %s", c.model, c.file, text, want)
			}
		}
		opened.Close()
	}
}

// memory is a sink that keeps files in memory.
type memory struct {
	files   map[string]string
	aborted int
	begin   error
}

func (m *memory) String() string { return "memory" }

func (m *memory) Begin(context.Context, bool) (files.Output, error) { return m, m.begin }

func (m *memory) Create(name string, size int64) (io.WriterAt, error) {
	m.files[name] = strings.Repeat("?", int(size))
	return memoryFile{m, name}, nil
}

func (m *memory) Commit(context.Context) error { return nil }

func (m *memory) Abort() error {
	m.aborted++
	return nil
}

type memoryFile struct {
	*memory
	name string
}

func (f memoryFile) WriteAt(p []byte, off int64) (int, error) {
	text := f.files[f.name]
	f.files[f.name] = text[:off] + string(p) + text[int(off)+len(p):]
	return len(p), nil
}

// readable is one of which files can be read again.
type readable struct{ *memory }

func (r readable) Begin(context.Context, bool) (files.Output, error) { return r, nil }

func (r readable) Open(_ context.Context, name string) (files.File, error) {
	return strings.NewReader(r.files[name]), nil
}

// TestOutputsOfSinks: files are created and copied in their folders, read again where the
// sink can, and the sink hears the end once.
func TestOutputsOfSinks(t *testing.T) {
	from := tree(t, false, map[string]string{"a/b.txt": "some text", "empty": ""})
	m := &memory{files: map[string]string{}}
	out, err := Begin(t.Context(), readable{m}, stage.Output{})
	if err != nil {
		t.Fatal(err)
	}
	part := out.In("part")
	err = errors.Join(part.CopyFile(t.Context(), "b.txt", from.In("a/b.txt")), part.CopyFile(t.Context(), "empty", from.In("empty")), part.WriteFile("c", []byte("text")), part.WriteFile("d", nil))
	if want := map[string]string{"part/b.txt": "some text", "part/empty": "", "part/c": "text", "part/d": ""}; err != nil || !maps.Equal(m.files, want) {
		t.Errorf("%v, %v", m.files, err)
	}
	if text, err := source.ReadFile(out.Written(t.Context(), "").Tree, out.Written(t.Context(), "part/c").Path, 99); string(text) != "text" || err != nil || !out.Readable() {
		t.Errorf("read again: %q, %v", text, err)
	}
	if out.Free() != -1 || out.Notes() != nil || !errors.Is(out.Named(io.EOF), io.EOF) {
		t.Error("a sink knows what only a disk does")
	}
	scratch, err := out.Scratch()
	if err == nil {
		_, err = scratch.WriteAt([]byte("x"), 5)
	}
	if err = errors.Join(err, out.Abort(), out.Abort()); err != nil || m.aborted != 1 {
		t.Errorf("aborted %d times, %v", m.aborted, err)
	}
	if err := part.CopyFile(t.Context(), "x", from.In("gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := part.CopyFile(ended, "x", from.In("a/b.txt")); !errors.Is(err, context.Canceled) {
		t.Errorf("the context is over: %v", err)
	}
	if plain, _ := Begin(t.Context(), m, stage.Output{}); plain.Readable() {
		t.Error("a sink that cannot be read is readable")
	}
	for err, isUsage := range map[error]bool{fs.ErrExist: true, fs.ErrPermission: false} {
		if _, got := Begin(t.Context(), &memory{begin: err}, stage.Output{}); !errors.Is(got, err) || errors.Is(got, usage.Err) != isUsage || !strings.Contains(got.Error(), "memory") {
			t.Errorf("%v becomes %v", err, got)
		}
	}
}

// TestSideFiles: the config lies beside an output of one file, but for where it would
// come between other weights and what describes them.
func TestSideFiles(t *testing.T) {
	p := &plan.Plan{Config: sdnqconfig.Default()}
	text := pyjson.DumpSorted(p.Config.Encode())
	own := weights(t, false, map[string]string{layout.ConfigKey: text})
	for name, c := range map[string]struct {
		there  map[string]string
		plan   plan.Plan
		force  bool
		beside []stage.Beside
		note   string
		err    string
	}{
		"nothing there":       {nil, *p, false, []stage.Beside{{Name: layout.ConfigFile}}, "and in " + layout.ConfigFile, ""},
		"no config":           {nil, plan.Plan{}, false, nil, "", ""},
		"other weights":       {map[string]string{"b.safetensors": own}, *p, false, nil, "other weights beside it (b.safetensors)", ""},
		"another's config":    {map[string]string{layout.ConfigFile: "{}"}, *p, false, nil, "which is not its own", ""},
		"the same config":     {map[string]string{layout.ConfigFile: text}, *p, false, nil, "and in " + layout.ConfigFile, ""},
		"its own, replaced":   {map[string]string{"a.safetensors": own, layout.ConfigFile: text + " "}, *p, true, []stage.Beside{{Name: layout.ConfigFile, Replace: true}}, "and in", ""},
		"its own, gone":       {map[string]string{"a.safetensors": own, layout.ConfigFile: text}, plan.Plan{}, true, []stage.Beside{{Name: layout.ConfigFile, Gone: true}}, "", ""},
		"of both":             {map[string]string{"a.safetensors": own, "b.safetensors": own, layout.ConfigFile: text}, plan.Plan{}, true, nil, "", ""},
		"a folder":            {map[string]string{layout.ConfigFile + "/x": ""}, *p, false, nil, "no ordinary file", ""},
		"needed and not free": {map[string]string{"b.safetensors": own}, plan.Plan{Config: p.Config, ConfigFile: true}, false, nil, "", "name a folder"},
		"needed, and it is":   {nil, plan.Plan{Config: p.Config, ConfigFile: true}, false, []stage.Beside{{Name: layout.ConfigFile, Needed: true}}, "and in", ""},
	} {
		dir := t.TempDir()
		for file, text := range c.there {
			write(t, filepath.Join(dir, file), text)
		}
		f, err := SideFileOf(&c.plan, filepath.Join(dir, "a.safetensors"), c.force)
		if c.err != "" {
			if !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Equal(f.Beside(), c.beside) || !strings.Contains(strings.Join(f.Notes(), ""), c.note) || c.note == "" && f.Notes() != nil {
			t.Errorf("%s: %+v, notes %q", name, f.Beside(), f.Notes())
		}
		l := &Listing{}
		if err := f.Write(l.In("")); err != nil || (len(l.Names()) > 0) != (c.beside != nil && !c.beside[0].Gone) {
			t.Errorf("%s: wrote %v, %v", name, l.Names(), err)
		}
	}
}

// TestNoSideFile: a sink that is no path has the config in the header, and an
// application that reads no header is refused.
func TestNoSideFile(t *testing.T) {
	if f, err := NoSideFile(&plan.Plan{}, "x"); err != nil || f.Notes() != nil {
		t.Errorf("no config: %v, %v", f.Notes(), err)
	}
	if f, err := NoSideFile(&plan.Plan{Config: sdnqconfig.Default()}, "x"); err != nil || len(f.Notes()) != 1 || f.Beside() != nil {
		t.Errorf("a config: %v, %v", f.Notes(), err)
	}
	if _, err := NoSideFile(&plan.Plan{Config: sdnqconfig.Default(), ConfigFile: true}, "x"); !errors.Is(err, usage.Err) {
		t.Errorf("an application that needs the file: %v", err)
	}
}

// TestSourcePaths: the files that are read, which an output must not be.
func TestSourcePaths(t *testing.T) {
	s := tree(t, true, map[string]string{"model.safetensors": weights(t, false, nil)})
	c, err := checkpoint.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := SourcePaths(c, true); !slices.Contains(got, filepath.Join(s.Path, "model.safetensors")) {
		t.Errorf("%v", got)
	}
	if Within("out", "") != "out" || Within("out", "vae") != filepath.Join("out", "vae") || !IsFolder("out") || IsFolder("out.safetensors") {
		t.Error("an output's name")
	}
}
