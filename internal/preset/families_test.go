package preset

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const golden = "../../testdata/golden/families"

// row is one tensor of a golden model (see conformance/families/README.md).
type row struct {
	name, class, flags, memory string
	shape                      []int
}

type model struct {
	name   string
	config map[string]json.RawMessage
	list   []string
	filter string
	rows   []row
}

func (m *model) tensors(yield func(string, []int) bool) {
	for _, r := range m.rows {
		if !yield(r.name, r.shape) {
			return
		}
	}
}

func readModels(t *testing.T, folder string, least int) []*model {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.tsv"))
	if err != nil || len(paths) < least {
		t.Fatalf("%d models in %s, want at least %d; %v", len(paths), folder, least, err)
	}
	var models []*model
	for _, path := range paths {
		models = append(models, readModel(t, path))
	}
	return models
}

func readModel(t *testing.T, path string) *model {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := &model{name: strings.TrimSuffix(filepath.Base(path), ".tsv")}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		fields := strings.Split(s.Text(), "\t")
		switch {
		case strings.HasPrefix(fields[0], "#"):
		case fields[0] == "config":
			if err := json.Unmarshal([]byte(fields[1]), &m.config); err != nil {
				t.Fatal(path, err)
			}
		case fields[0] == "list":
			m.list = fields[1:]
		case fields[0] == "preset":
			m.filter = fields[1]
		default:
			m.rows = append(m.rows, readRow(t, fields))
		}
	}
	if s.Err() != nil || len(m.rows) == 0 {
		t.Fatal(path, s.Err(), len(m.rows))
	}
	return m
}

func readRow(t *testing.T, fields []string) row {
	t.Helper()
	r := row{name: fields[0]}
	fields = append(fields, "") // a scalar's row may end after the name
	for d := range strings.SplitSeq(fields[1], "x") {
		if d == "" {
			continue
		}
		n, err := strconv.Atoi(d)
		if err != nil {
			t.Fatal(err)
		}
		r.shape = append(r.shape, n)
	}
	for i, to := range []*string{&r.class, &r.flags, &r.memory} {
		if len(fields) > 2+i {
			*to = fields[2+i]
		}
	}
	return r
}

// variants are those of make_families.py.
var variants = []struct {
	letter          string
	conv, embedding bool
	numel, channels int
}{
	{"d", false, false, 1, 1},
	{"c", true, false, 1, 1},
	{"e", false, true, 1, 1},
	{"m", true, true, 3073, 33},
}

// flags are the variants in which a row says that a weight is quantized.
func flags(p *Preset, name string, shape []int) (letters string) {
	if _, skipped := p.Skip(name); skipped {
		return ""
	}
	kind, numel := p.Kind(name, shape), 1
	for _, n := range shape {
		numel *= n
	}
	for _, v := range variants {
		if kind.Quantizable(v.conv, v.embedding) && numel >= v.numel && kind.Channels(shape) >= v.channels {
			letters += v.letter
		}
	}
	return letters
}

// kinds are those of the classes that SDNQ knows by name.
var kinds = map[string]Kind{
	"Linear": Linear, "Embedding": Embedded, "Conv1d": Conv1d, "Conv2d": Conv2d, "Conv3d": Conv3d,
	"ConvTranspose1d": ConvTranspose1d, "ConvTranspose2d": ConvTranspose2d, "ConvTranspose3d": ConvTranspose3d,
}

func check(t *testing.T, p *Preset, m *model) {
	t.Helper()
	for _, r := range m.rows {
		if got := flags(p, r.name, r.shape); got != r.flags {
			entry, _ := p.Skip(r.name)
			t.Errorf("%s %v (%s): quantized in variants %q, want %q; kind %s, entry %q", r.name, r.shape, r.class, got, r.flags, p.Kind(r.name, r.shape), entry)
		}
	}
}

func TestQuantizedAsReference(t *testing.T) {
	for _, m := range readModels(t, golden, 70) {
		t.Run(m.name, func(t *testing.T) {
			p, why := Recognise(m.config, m.tensors)
			if p.Name == "generic" && !slices.Contains(strangers, m.name) {
				t.Errorf("recognised as %s: %s", p.Name, why)
			}
			check(t, p, m)
			if !slices.Equal(p.SkipKeys, m.list) {
				t.Errorf("list\n%q, want\n%q", p.SkipKeys, m.list)
			}
			for _, r := range m.rows {
				checkRow(t, p, r)
			}
		})
	}
}

func checkRow(t *testing.T, p *Preset, r row) {
	t.Helper()
	want := kinds[r.class]
	if want == "" {
		want = Other
	}
	if got := p.Kind(r.name, r.shape); len(r.shape) > 1 && got != want {
		t.Errorf("%s %v: kind %s, want %s (%s)", r.name, r.shape, got, want, r.class)
	}
	switch got := strings.Join(p.MemoryNames(r.name), " "); {
	case !strings.HasSuffix(r.name, ".weight") || r.memory == "-":
	case got != r.memory:
		t.Errorf("%s: in memory %q, want %q", r.name, got, r.memory)
	}
}

// strangers are of no family.
var strangers = []string{}

// alike are models whose names are those of another family, with no effect on
// what is quantized.
var alike = map[string]string{"mistral": "llama", "phi3": "llama", "sd15-unet": "sd-unet"}

func TestNamesAloneTellTheFamily(t *testing.T) {
	for _, m := range readModels(t, golden, 70) {
		t.Run(m.name, func(t *testing.T) {
			known, _ := Recognise(m.config, m.tensors)
			p, why := Recognise(nil, m.tensors)
			want := known.Name
			if other := alike[m.name]; other != "" {
				want = other
			}
			if p.Name != want {
				t.Errorf("recognised as %s (%s), want %s", p.Name, why, want)
			}
			check(t, p, m)
		})
	}
}

// families by the case of a single file.
var singles = map[string]string{"sd15-unet": "sd-unet", "wan-i2v": "wan", "hunyuan-video-1.5": "hunyuan-video", "hunyuan-video-comfy": "hunyuan-video", "mistral": "llama"}

func TestSingleFiles(t *testing.T) {
	for _, m := range readModels(t, filepath.Join(golden, "single"), 27) {
		t.Run(m.name, func(t *testing.T) {
			p, why := Recognise(nil, m.tensors)
			want := singles[m.name]
			if want == "" {
				want = m.name
			}
			if p.Name != want {
				t.Errorf("recognised as %s (%s), want %s", p.Name, why, want)
			}
			none, err := ByName("none")
			if err != nil {
				t.Fatal(err)
			}
			checkFilter(t, none, m, 0)
			if m.filter == "" {
				return
			}
			row := generic(&Family{Name: m.filter})
			row.filter([]*Filter{FilterByName(m.filter)})
			checkFilter(t, row.For(nil, m.tensors), m, 1)
			if p.family.Filters != nil && p.Name == want {
				checkFilter(t, p.AsReference(), m, 1)
			}
		})
	}
}

// checkFilter compares with one column of what convert_to_quant made of it: 0
// without, 1 with the preset's flag.
func checkFilter(t *testing.T, p *Preset, m *model, column int) {
	t.Helper()
	for _, r := range m.rows {
		got := byte('k')
		switch {
		case p.Drop(r.name):
			got = 'x'
		case strings.HasSuffix(r.name, ".weight") && len(r.shape) == 2 && p.Keep(r.name, r.shape[0], r.shape[1]) == "":
			got = 'q'
		}
		if got != r.class[column] {
			t.Errorf("%s %v: %c, want %c", r.name, r.shape, got, r.class[column])
		}
	}
}

// The filters are all of convert_to_quant's, and every family's exist.
func TestFilters(t *testing.T) {
	for _, f := range families {
		for _, name := range f.Filters {
			if FilterByName(name) == nil {
				t.Errorf("%s: no filter %s", f.Name, name)
			}
		}
	}
	if got := slices.Sorted(maps.Keys(diffusersFacts)); len(got) < 70 {
		t.Errorf("%d classes of diffusers", len(got))
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range All() {
		if seen[p.Name] {
			t.Errorf("%s twice", p.Name)
		}
		seen[p.Name] = true
	}
}

// Under the names of single files the same layers are kept that SDNQ's list
// for the class keeps once diffusers has renamed them.
func TestListsOfSingleFiles(t *testing.T) {
	for _, m := range readModels(t, filepath.Join(golden, "lists"), 10) {
		t.Run(m.name, func(t *testing.T) {
			whole := readModel(t, filepath.Join(golden, "single", m.name+".tsv"))
			p, _ := Recognise(nil, whole.tensors)
			for _, r := range m.rows {
				entry, kept := p.Skip(r.name)
				if r.class != "m" && kept != (r.class == "k") {
					t.Errorf("%s: kept %v by %q, want %s", r.name, kept, entry, r.class)
				}
			}
		})
	}
}

// uncompared are families of which the references that made the goldens had no model.
var uncompared = []string{"anima", "autoencoder-conv3d", "gemma4", "qwen3.5", "vision-language"}

// TestEveryFamilyHasAGolden: a family of which no model of the references is compared
// may keep anything.
func TestEveryFamilyHasAGolden(t *testing.T) {
	known := map[string]bool{}
	for _, m := range slices.Concat(readModels(t, golden, 70), readModels(t, filepath.Join(golden, "single"), 27)) {
		p, _ := Recognise(m.config, m.tensors)
		known[p.Name] = true
	}
	for _, f := range families {
		if known[f.Name] == slices.Contains(uncompared, f.Name) {
			t.Errorf("%s: that a model in %s is one is %v", f.Name, golden, known[f.Name])
		}
	}
}
