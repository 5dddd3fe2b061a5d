package checkpoint

import (
	"cmp"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// kind says how a set of weights is laid out in a folder.
type kind int

const (
	single kind = iota
	indexed
	numbered // shards without an index, which some tools save
)

// set is weights that belong together: STEM.safetensors, or shards. A variant, which
// loaders load only when asked for it by name, is part of the file names.
type set struct {
	stem, variant string
	kind          kind
	of            int      // the number of numbered shards
	files         []string // the file, the numbered shards, or the index
}

// library is a loader and the stems that it looks for in a folder.
type library struct {
	stems []string // the first one preferred
	kinds []kind
}

const (
	modelStem     = "model"
	diffusersStem = "diffusion_pytorch_model"
)

var (
	transformers = &library{[]string{modelStem, diffusersStem}, []kind{single, indexed, numbered}}
	diffusers    = &library{[]string{diffusersStem, modelStem}, []kind{indexed, single, numbered}}
)

// stems are the names that loaders know. A word after one of them, as in model.fp16,
// names a variant.
var stems = []string{modelStem, diffusersStem}

// weightNames match the file names of weights. Their groups are the stem, the variant
// where it stands before the numbers, the shard's number, the count of shards, and the
// variant where it stands elsewhere. The third and the fifth pattern match what older
// releases of diffusers write.
var weightNames = []struct {
	kind    kind
	pattern *regexp.Regexp
}{
	{indexed, regexp.MustCompile(`(?i)^(.+)\.safetensors\.index()()\.json$`)},
	{indexed, regexp.MustCompile(`(?i)^(.+)\.safetensors\.index()()\.([^.]+)\.json$`)},
	{indexed, regexp.MustCompile(`(?i)^(.+)\.safetensors()()\.([^.]+)\.index\.json$`)},
	{numbered, regexp.MustCompile(`(?i)^(.+)-(\d{1,9})-of-(\d{1,9})\.safetensors$`)},
	{numbered, regexp.MustCompile(`(?i)^(.+)-(\d{1,9})-of-(\d{1,9})\.([^.]+)\.safetensors$`)},
	{single, regexp.MustCompile(`(?i)^(.+)\.safetensors$`)},
}

// parseName returns the set that a file belongs to, and its number in the set.
func parseName(name string) (s set, number int, ok bool) {
	for _, w := range weightNames {
		m := w.pattern.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		s = set{stem: m[1], kind: w.kind, files: []string{name}}
		if len(m) > 2 {
			number, _ = strconv.Atoi(m[2])
			s.of, _ = strconv.Atoi(m[3])
		}
		if len(m) > 4 {
			s.variant = m[4]
		} else {
			s.splitVariant()
		}
		return s, number, true
	}
	return s, 0, false
}

// splitVariant separates the variant from a stem that loaders know.
func (s *set) splitVariant() {
	stem, variant, found := strings.Cut(s.stem, ".")
	if found && slices.Contains(stems, stem) && !strings.Contains(variant, ".") {
		s.stem, s.variant = stem, variant
	}
}

// same reports whether loaders look for both under one name.
func (s *set) same(t *set) bool { return s.stem == t.stem && s.variant == t.variant }

// setsOf groups the files of a folder into sets. Numbered shards that an index lists
// belong to the set of the index.
func setsOf(names []string) (sets []*set) {
	for _, name := range names {
		s, _, ok := parseName(name)
		if !ok {
			continue
		}
		i := slices.IndexFunc(sets, func(t *set) bool {
			return s.kind == numbered && t.kind == numbered && s.of == t.of && s.same(t)
		})
		if i >= 0 {
			sets[i].files = append(sets[i].files, name)
			continue
		}
		sets = append(sets, &s)
	}
	return slices.DeleteFunc(slices.Clone(sets), func(s *set) bool {
		return s.kind == numbered && slices.ContainsFunc(sets, func(t *set) bool { return t.kind == indexed && s.same(t) })
	})
}

// find returns the set that a loader takes, or nil if none has that name.
func find(sets []*set, stem, variant string, l *library) *set {
	for _, k := range l.kinds {
		for _, s := range sets {
			if s.kind == k && s.stem == stem && s.variant == variant {
				return s
			}
		}
	}
	return nil
}

// libraryOf returns the loader that a model's config is for, nil if the config does not
// tell.
func libraryOf(config pyjson.Object) *library {
	if _, ok := config.Get("_class_name"); ok {
		return diffusers
	}
	for _, key := range []string{"architectures", "model_type"} {
		if _, ok := config.Get(key); ok {
			return transformers
		}
	}
	return nil
}

// looking is a stem to look for, and the loader that looks for it.
type looking struct {
	stem string
	*library
}

// order returns what to look for, in order: the stems of the config's loader, or
// without one every stem in the order of its own loader.
func order(config pyjson.Object) (all []looking) {
	if l := libraryOf(config); l != nil {
		for _, stem := range l.stems {
			all = append(all, looking{stem, l})
		}
		return all
	}
	return []looking{{modelStem, transformers}, {diffusersStem, diffusers}}
}

// chooseSet returns the weights that the loader of a folder takes. If none have a name
// that it looks for, it returns their only variant, else the only set in the folder.
func chooseSet(dir string, sets []*set, config pyjson.Object) (*set, error) {
	usual := order(config)
	for _, l := range usual {
		if s := find(sets, l.stem, "", l.library); s != nil {
			return s, nil
		}
	}
	for _, l := range usual {
		var variants []string
		for _, s := range sets {
			if s.stem == l.stem && !slices.Contains(variants, s.variant) {
				variants = append(variants, s.variant)
			}
		}
		if len(variants) == 1 {
			return find(sets, l.stem, variants[0], l.library), nil
		}
		if len(variants) > 1 {
			return nil, undecided(dir, sets)
		}
	}
	return onlySet(dir, sets)
}

// onlySet returns the only set in a folder; if there are indexes, only those count.
func onlySet(dir string, sets []*set) (*set, error) {
	indexes := slices.DeleteFunc(slices.Clone(sets), func(s *set) bool { return s.kind != indexed })
	if len(indexes) > 0 {
		sets = indexes
	}
	if len(sets) == 1 {
		return sets[0], nil
	}
	return nil, undecided(dir, sets)
}

func undecided(dir string, sets []*set) error {
	var names []string
	for _, s := range sets {
		names = append(names, s.files...)
	}
	slices.Sort(names)
	return usage.SourceErrorf("%s: holds %s, and nothing says which to take: name one of them", dir, ListNames(names))
}

// checkNumbers makes sure that numbered shards are all there.
func (s *set) checkNumbers(dir string) error {
	seen := map[int]bool{}
	for _, name := range s.files {
		_, n, _ := parseName(name)
		seen[n] = true
	}
	for n := 1; n <= s.of; n++ {
		if !seen[n] {
			return usage.SourceErrorf("%s: shard %d of %d is missing, and there is no index: it holds %s", dir, n, s.of, ListNames(s.files))
		}
	}
	if len(s.files) != s.of {
		return usage.SourceErrorf("%s: want %d shards, got %d: it holds %s", dir, s.of, len(s.files), ListNames(s.files))
	}
	return nil
}

// WeightsKey is the key under which a transformers config names its weights.
const WeightsKey = "transformers_weights"

// explicitSet returns the weights that the config names, nil if it names none.
func (c *Checkpoint) explicitSet() (*set, error) {
	value, _ := c.Config.Get(WeightsKey)
	if value == nil || libraryOf(c.Config) == diffusers {
		return nil, nil
	}
	name, _ := value.(string)
	s, _, ok := parseName(name)
	if !ok || s.kind == numbered && s.of > 1 || filepath.Base(name) != name {
		return nil, usage.SourceErrorf("%s: %s is %v, want the name of a %s or *%s file in the folder",
			c.beside(configFile), WeightsKey, value, weightSuffix, indexSuffix)
	}
	s.stem, s.variant = strings.TrimSuffix(cmp.Or(cutIndex(name), name), weightSuffix), ""
	return &s, nil
}

// cutIndex returns the file name of the weights that an index would list, "" if the
// name is not that of an index.
func cutIndex(name string) string {
	file, ok := strings.CutSuffix(name, ".index.json")
	if !ok {
		return ""
	}
	return file
}
