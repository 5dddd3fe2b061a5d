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
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// configFile stands beside PEFT's adapters; configKey is the entry of a header in which
// diffusers keeps what stands there, with the component's name before each key.
const (
	configFile = "adapter_config.json"
	configKey  = "lora_adapter_metadata"
)

// config is what PEFT says of an adapter, with PEFT's defaults for what it leaves out.
type config struct {
	Type         string   `json:"peft_type"`
	Alpha        *float64 `json:"lora_alpha"`
	AlphaOfOther *float64 `json:"alpha"` // of LoHa and LoKr
	Rank         *int     `json:"r"`
	RSLora       bool     `json:"use_rslora"`
	DoRA         bool     `json:"use_dora"`
	FanInFanOut  bool     `json:"fan_in_fan_out"`
	Alphas       entries  `json:"alpha_pattern"`
	Ranks        entries  `json:"rank_pattern"`
	Init         any      `json:"init_lora_weights"`
	ranked       bool     // it says the rank
	file         string
	components   map[string]*config // of a header, by the first word of names
}

// peftDefault is r, lora_alpha and alpha of a config that does not say them.
const peftDefault = 8

// entry is a number for the modules that a pattern names.
type entry struct {
	*pattern.Pattern
	value float64
}

// entries are in the order of the config, of which the first that fits counts.
type entries []entry

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
	alpha, other, rank := float64(peftDefault), float64(peftDefault), peftDefault
	c.Alpha, c.AlphaOfOther, c.Rank = &alpha, &other, &rank
	if err := json.Unmarshal(text, c); err != nil {
		return usage.SourceErrorf("%s: %w", c.file, inWords(err))
	}
	keys := map[string]any{}
	if err := json.Unmarshal(text, &keys); err != nil {
		return usage.SourceErrorf("%s: %w", c.file, err)
	}
	_, c.ranked = keys["r"]
	if err := c.check(keys); err != nil {
		return usage.SourceErrorf("%s: %w", c.file, err)
	}
	return nil
}

// inWords says which key of a config has a value that it cannot have.
func inWords(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case !errors.As(err, &wrong):
		return err
	case wrong.Field == "":
		return fmt.Errorf("is no object but: %s", wrong.Value)
	}
	return fmt.Errorf("%s has a value that it cannot have: %s", wrong.Field, wrong.Value)
}

// unmerged are keys of PEFT's for adapters that no difference of weights stands for, or
// whose difference is another than the factors' product, with what such an adapter does.
var unmerged = []struct{ key, does string }{
	{"alora_invocation_tokens", "works from a token on"},
	{"arrow_config", "chooses among others for each token"},
	{"use_qalora", "takes means of the inputs"},
	{"use_bdlora", "has factors of blocks"},
	{"kasa_config", "takes part of the weights away"},
	{"monteclora_config", "samples its factors"},
	{"layer_replication", "repeats layers of the model"},
	{"target_parameters", "changes parameters that are no layers"},
}

// changedBase are the beginnings of init_lora_weights with which PEFT takes from the
// weights what the factors begin with.
var changedBase = []string{"pissa", "corda", "olora", "loftq", "lora_ga"}

// check refuses what is not merged as PEFT does. keys are all of the config.
func (c *config) check(keys map[string]any) error {
	if c.Type != "" && !slices.Contains([]string{"LORA", "LOHA", "LOKR"}, c.Type) {
		return fmt.Errorf("peft_type %s%s", c.Type, isNoAdapter)
	}
	for _, u := range unmerged {
		switch v := keys[u.key].(type) {
		case nil:
			continue
		case bool:
			if !v {
				continue
			}
		}
		return fmt.Errorf("%s: such an adapter %s, and is not merged into weights", u.key, u.does)
	}
	if c.Rank == nil || *c.Rank < 1 {
		return errors.New("r is no rank")
	}
	if a, key := c.alpha(); a == nil {
		return fmt.Errorf("%s is no number", key)
	}
	init := strings.ToLower(fmt.Sprint(c.Init))
	if slices.ContainsFunc(changedBase, func(begin string) bool { return strings.HasPrefix(init, begin) }) {
		return fmt.Errorf("init_lora_weights %v: its factors go with weights of which PEFT has taken a part away: save it with PEFT's path_initial_model_for_weight_conversion, which makes a plain LoRA of it", c.Init)
	}
	return nil
}

// alpha is that of all modules, and what its key is called.
func (c *config) alpha() (*float64, string) {
	if c.Type == "LOHA" || c.Type == "LOKR" {
		return c.AlphaOfOther, "alpha"
	}
	return c.Alpha, "lora_alpha"
}

// UnmarshalJSON compiles PEFT's patterns, which stand for the ends of modules' names.
func (list *entries) UnmarshalJSON(text []byte) error {
	all, err := pyjson.ParseObject(text)
	if err != nil && string(text) != "null" {
		return err
	}
	for _, m := range all {
		p, err := pattern.Compile(`^(?:(.*\.)?(` + m.Key + `)$)`)
		if err != nil {
			return err
		}
		n, ok := m.Value.(json.Number)
		value, err := n.Float64()
		if !ok || err != nil {
			return fmt.Errorf("%s of a pattern is no number", m.Key)
		}
		*list = append(*list, entry{p, value})
	}
	return nil
}

// value is that of the first entry for a name.
func value(list entries, name string) (float64, bool) {
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
		return nil, usage.SourceErrorf("%s: %w", where, inWords(err))
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
	a, _ := c.alpha()
	if v, ok := value(c.Alphas, name); ok {
		a = &v
	}
	if c.RSLora {
		return *a / math.Sqrt(float64(rank))
	}
	return *a / float64(rank)
}

// configRank is the rank that PEFT's config gives a module, by which it scales even what has
// none; 0 where there is no config.
func (f *File) configRank(m *module) int {
	c, name := f.config.of(m.name)
	if c == nil || m.alpha != nil {
		return 0
	}
	if v, ok := value(c.Ranks, name); ok {
		return int(v)
	}
	return *c.Rank
}

// agrees refuses factors that PEFT's config contradicts, whose scale it would tell wrongly.
func (f *File) agrees(m *module) error {
	factor, ok := m.parts[down]
	c, name := f.config.of(m.name)
	if !ok || c == nil || len(factor.Shape) == 0 {
		return nil
	}
	if rank := f.configRank(m); rank != 0 && rank != factor.Shape[0] {
		return usage.SourceErrorf("%s: rank %d of %s%s, whose tensor %s in %s has %d: they are of two adapters", c.file, rank, m.name, c.unsaid(name), factor.Name, f.Path, factor.Shape[0])
	}
	_, rows := m.parts[magnitude]
	_, scales := m.parts[doraScale]
	if c.DoRA && !rows && !scales {
		return usage.SourceErrorf("%s: use_dora is true, and %s in %s has no .lora_magnitude_vector: the file is cut short, or of another adapter", c.file, m.name, f.Path)
	}
	return nil
}

// unsaid is a remark on the rank of a module that the config does not say.
func (c *config) unsaid(name string) string {
	if _, ok := value(c.Ranks, name); ok || c.ranked {
		return ""
	}
	return ", as PEFT has it where r is left out"
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
