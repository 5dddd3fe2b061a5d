package preset

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// predictor is how layers of multi-token prediction are called: they guess several tokens
// ahead, few programs load them, and guesses that are off cost the speed that they are
// there for.
type predictor struct {
	about string
	begin string // their names, after one of languagePrefixes
	sign  string // or what a tensor is called after the name of such a layer
}

var predictors = []predictor{
	{about: "Qwen3-Next, Qwen3.5 and Nemotron", begin: "mtp."},
	{about: "MiMo", begin: "mtp_layers."},
	{about: "Ernie 4.5", begin: "mtp_block."},
	{about: "Ernie 4.5", begin: "mtp_linear_proj."},
	{about: "DeepSeek V3, GLM-4.5 and their kin, behind the last layer", sign: "eh_proj.weight"},
}

// languagePrefixes are what names of a language model may begin with.
var languagePrefixes = []string{"", "model.", "language_model.", "model.language_model.", "language_model.model."}

// Predictors lists how layers of multi-token prediction are recognised.
func Predictors() (lines []string) {
	for _, p := range predictors {
		if p.begin != "" {
			lines = append(lines, p.begin+": "+p.about)
			continue
		}
		lines = append(lines, "layers with "+p.sign+", or that num_nextn_predict_layers of the config counts: "+p.about)
	}
	return lines
}

// Predicts reports whether a tensor belongs to a layer of multi-token prediction.
func (p *Preset) Predicts(name string) bool {
	for _, prefix := range languagePrefixes {
		rest, ok := strings.CutPrefix(name, prefix)
		if ok && slices.ContainsFunc(predictors, func(one predictor) bool { return one.begin != "" && strings.HasPrefix(rest, one.begin) }) {
			return true
		}
	}
	return slices.ContainsFunc(p.predicting, func(layer string) bool { return strings.HasPrefix(name, layer) })
}

var numberedLayer = regexp.MustCompile(`^(?:(?:model|language_model)\.)*layers\.(\d+)\.`)

// predicting are the beginnings of the names of layers that stand among the others, and
// that a sign or the config tells.
func (inv *inventory) predicting(config map[string]json.RawMessage) (layers []string) {
	first, count := counted(config)
	for _, name := range inv.names {
		m := numberedLayer.FindStringSubmatch(name)
		if m == nil || slices.Contains(layers, m[0]) {
			continue
		}
		n, err := strconv.Atoi(m[1])
		told := slices.ContainsFunc(predictors, func(p predictor) bool { return p.sign != "" && name == m[0]+p.sign })
		if told || err == nil && count > 0 && n >= first && n-first < count {
			layers = append(layers, m[0])
		}
	}
	return layers
}

// counted are the number of a model's layers and how many more predict, as the config says.
func counted(config map[string]json.RawMessage) (layers, predicting int) {
	for _, place := range []string{"", "text_config"} {
		of := config
		if place != "" {
			of = nil
			_ = json.Unmarshal(config[place], &of)
		}
		var n, k int
		if json.Unmarshal(of["num_hidden_layers"], &n) == nil && json.Unmarshal(of["num_nextn_predict_layers"], &k) == nil {
			return n, k
		}
	}
	return 0, 0
}
