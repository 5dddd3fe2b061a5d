package lora

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// configFile stands beside PEFT's adapters; configKey is the entry of a header in which
// diffusers keeps what stands there, with the component's name before each key.
const (
	configFile = "adapter_config.json"
	configKey  = "lora_adapter_metadata"
)

// config is what PEFT says of an adapter.
type config struct {
	Type         string             `json:"peft_type"`
	Alpha        *float64           `json:"lora_alpha"`
	AlphaOfOther *float64           `json:"alpha"` // of LoHa and LoKr
	Rank         int                `json:"r"`
	RSLora       bool               `json:"use_rslora"`
	DoRA         bool               `json:"use_dora"`
	FanInFanOut  bool               `json:"fan_in_fan_out"`
	Alphas       map[string]float64 `json:"alpha_pattern"`
	Ranks        map[string]float64 `json:"rank_pattern"`
	file         string
	components   map[string]*config // of a header, by the first word of names
	alphas       []entry
	ranks        []entry
}

// entry is a number for the modules that a pattern names.
type entry struct {
	*pattern.Pattern
	value float64
}

// readConfig reads what stands beside the file or in its header; nil for none.
func (f *File) readConfig() (*config, error) {
	if text, ok := f.source.Metadata[configKey]; ok {
		return f.headerConfig(text)
	}
	if !slices.ContainsFunc(f.source.Tensors, func(t checkpoint.Tensor) bool { return strings.HasPrefix(t.Name, peftPrefix) }) {
		return nil, nil
	}
	text, err := f.source.ReadBeside(configFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || text == nil {
		return nil, err
	}
	c := &config{file: f.source.Beside(configFile).Path}
	return c, c.parse(text)
}

func (c *config) parse(text []byte) error {
	if err := json.Unmarshal(text, c); err != nil {
		return usage.SourceErrorf("%s: %w", c.file, err)
	}
	return c.check()
}

func (c *config) check() error {
	if c.Type != "" && !slices.Contains([]string{"LORA", "LOHA", "LOKR"}, c.Type) {
		return usage.SourceErrorf("%s: peft_type %s%s", c.file, c.Type, isNoAdapter)
	}
	var err error
	if c.alphas, err = entries(c.Alphas); err == nil {
		c.ranks, err = entries(c.Ranks)
	}
	if err != nil {
		return usage.SourceErrorf("%s: %w", c.file, err)
	}
	return nil
}

// entries compiles PEFT's patterns, which stand for the ends of modules' names.
func entries(all map[string]float64) (list []entry, err error) {
	for key, value := range all {
		p, err := pattern.Compile(`^(.*\.)?(` + key + `)$`)
		if err != nil {
			return nil, err
		}
		list = append(list, entry{p, value})
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.String(), b.String()) })
	return list, nil
}

// value is that of the first entry for a name.
func value(list []entry, name string) (float64, bool) {
	for _, e := range list {
		if ok, err := e.Match(name); ok && err == nil {
			return e.value, true
		}
	}
	return 0, false
}

// headerConfig reads the entry of a header: {"transformer.r": 16, …}.
func (f *File) headerConfig(text string) (*config, error) {
	all := map[string]json.RawMessage{}
	where := fmt.Sprintf("%s: %s of the header", f.Path, configKey)
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, usage.SourceErrorf("%s: %w", where, err)
	}
	by := map[string]map[string]json.RawMessage{}
	for key, value := range all {
		component, rest, ok := strings.Cut(key, ".")
		if !ok {
			component, rest = "", key
		}
		if by[component] == nil {
			by[component] = map[string]json.RawMessage{}
		}
		by[component][rest] = value
	}
	c := &config{file: where, components: map[string]*config{}}
	for component, keys := range by {
		text, err := json.Marshal(keys)
		if err != nil {
			return nil, err
		}
		one := &config{file: where}
		if err := one.parse(text); err != nil {
			return nil, err
		}
		c.components[component] = one
	}
	return c, nil
}

// of is what is said of a module, and its name without what stands before the model's.
func (c *config) of(module string) (*config, string) {
	if c == nil || c.components == nil {
		return c, strings.TrimPrefix(module, peftPrefix)
	}
	component, rest, _ := strings.Cut(module, ".")
	if one := c.components[component]; one != nil {
		return one, rest
	}
	return c.components[""], module
}

// scale is what the product of factors of a rank is multiplied by, beside the strength.
func (f *File) scale(m *module, rank int) float64 {
	if m.alpha != nil {
		return *m.alpha / float64(rank)
	}
	c, name := f.config.of(m.name)
	if c == nil {
		return 1
	}
	a := c.Alpha
	if a == nil {
		a = c.AlphaOfOther
	}
	if v, ok := value(c.alphas, name); ok {
		a = &v
	}
	switch {
	case a == nil:
		return 1
	case c.RSLora:
		return *a / math.Sqrt(float64(rank))
	}
	return *a / float64(rank)
}

// configRank is the rank that PEFT's config gives a module, by which it scales even what has
// none; 0 where nothing says one.
func (f *File) configRank(m *module) int {
	c, name := f.config.of(m.name)
	if c == nil || m.alpha != nil {
		return 0
	}
	if v, ok := value(c.ranks, name); ok {
		return int(v)
	}
	return c.Rank
}

// transposed reports whether weights are inputs by outputs, as GPT-2's are.
func (f *File) transposed(m *module) bool {
	c, _ := f.config.of(m.name)
	return c != nil && c.FanInFanOut
}

// noteConfig says that nothing tells the scale of PEFT's factors.
func (f *File) noteConfig() {
	if f.config != nil {
		return
	}
	for _, m := range f.modules {
		if _, factors := m.parts[down]; factors && m.alpha == nil && strings.HasPrefix(m.name, peftPrefix) {
			f.notes = append(f.notes, fmt.Sprintf("%s has PEFT's names and no %s beside it: its factors are merged with the scale 1, as ComfyUI does", f.Path, configFile))
			return
		}
	}
}
