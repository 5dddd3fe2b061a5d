package lora

import (
	"slices"
	"strings"
)

// part is what a tensor is to the module that it is of.
type part int

const (
	down       part = iota // of LoRA: [rank, inputs]
	up                     // [outputs, rank]
	mid                    // of a convolution: [rank, rank, places]
	embeddingA             // of an embedding: [rank, rows]
	embeddingB             // [columns, rank]
	hada1A                 // of LoHa
	hada1B
	hada2A
	hada2B
	hada1T
	hada2T
	kron1 // of LoKr: whole, or the product of A and B
	kron1A
	kron1B
	kron2
	kron2A
	kron2B
	kron2T
	diff     // added to the weight
	set      // takes its place
	biasDiff // added to the bias
	biasUp   // added to the bias, with the scale of the factors
	alpha
	doraScale // of rows or columns, as LyCORIS has it
	magnitude // of rows, as PEFT has it
	reshape
)

// ends are the ends of names, of which the first that fits counts.
var ends = []struct {
	end string
	part
}{
	{".lora_down.weight", down}, {".lora_up.weight", up}, {".lora_mid.weight", mid}, // Kohya's, LyCORIS's
	{"_lora.down.weight", down}, {"_lora.up.weight", up}, // diffusers' of old
	{".lora.down.weight", down}, {".lora.up.weight", up},
	{".lora_linear_layer.down.weight", down}, {".lora_linear_layer.up.weight", up},
	{".lora_A.weight", down}, {".lora_B.weight", up}, // PEFT's, diffusers'
	{".lora_A.default.weight", down}, {".lora_B.default.weight", up},
	{".lora_A", down}, {".lora_B", up}, // Mochi's
	{".lora_B.bias", biasUp}, {".lora_B.default.bias", biasUp},
	{".lora_embedding_A", embeddingA}, {".lora_embedding_B", embeddingB},
	{".lora_embedding_A.default", embeddingA}, {".lora_embedding_B.default", embeddingB},
	{".lora_magnitude_vector", magnitude}, {".lora_magnitude_vector.weight", magnitude}, {".lora_magnitude_vector.default.weight", magnitude},
	{".hada_w1_a", hada1A}, {".hada_w1_b", hada1B}, {".hada_w2_a", hada2A}, {".hada_w2_b", hada2B}, {".hada_t1", hada1T}, {".hada_t2", hada2T},
	{".lokr_w1", kron1}, {".lokr_w1_a", kron1A}, {".lokr_w1_b", kron1B},
	{".lokr_w2", kron2}, {".lokr_w2_a", kron2A}, {".lokr_w2_b", kron2B}, {".lokr_t2", kron2T},
	{".diff", diff}, {".w_norm", diff}, {".set_weight", set}, {".diff_b", biasDiff}, {".b_norm", biasDiff},
	{".alpha", alpha}, {".dora_scale", doraScale}, {".reshape_weight", reshape},
}

// otherEnds end the names of adapters of kinds that are not read.
var otherEnds = []struct{ end, kind string }{
	{".oft_blocks", "OFT or BOFT"}, {".oft_diag", "OFT"}, {".oft_R.weight", "OFT"}, {".oft_R", "OFT"}, {".oft_r", "OFT"}, {".boft_R", "BOFT"}, {".boft_s", "BOFT"},
	{".a1.weight", "GLoRA"}, {".a2.weight", "GLoRA"}, {".b1.weight", "GLoRA"}, {".b2.weight", "GLoRA"},
	{".ia3_l", "IA³"}, {".vera_lambda_b", "VeRA"}, {".vera_lambda_d", "VeRA"}, {".trainable_tokens_delta", "single tokens' embeddings"},
}

// kindNotRead is the kind of adapter that a key which means nothing here is of, "" where
// that is not known.
func kindNotRead(key string) string {
	for _, o := range otherEnds {
		if strings.HasSuffix(key, o.end) {
			return o.kind
		}
	}
	return ""
}

// peftPrefix stands before the names of a model in PEFT's files.
const peftPrefix = "base_model.model."

// splitKey tells the module and the part that a tensor is by its name.
func splitKey(name string) (module string, p part, ok bool) {
	for _, e := range ends {
		if module, ok := strings.CutSuffix(name, e.end); ok && module != "" {
			return module, e.part, true
		}
	}
	for end, p := range map[string]part{".down.weight": down, ".up.weight": up} { // XLabs'
		if module, ok := strings.CutSuffix(name, end); ok && strings.Contains(module[strings.LastIndexByte(module, '.')+1:], "_lora") {
			return module, p, true
		}
	}
	if strings.HasPrefix(name, peftPrefix) && !strings.Contains(name, ".lora_") { // a module that was trained whole
		name = strings.Replace(name, ".base_layer.", ".", 1)
		if name, ok := strings.CutSuffix(name, ".weight"); ok {
			return name, set, true
		}
		return name, set, strings.HasSuffix(name, ".bias")
	}
	return "", 0, false
}

// kindOfChange is a way to change a weight: the parts that tell it, those that it needs
// with them, and how the delta is made of them.
type kindOfChange struct {
	name   string
	tell   []part
	need   []part
	either [][]part // of which one set has to be there
	make   func(r *reader) (delta, error)
}

var kindsOfChange = []kindOfChange{
	{name: "LoRA", tell: []part{down, up, mid, biasUp, magnitude}, need: []part{down, up}, make: (*reader).lora},
	{name: "LoRA of an embedding", tell: []part{embeddingA, embeddingB}, need: []part{embeddingA, embeddingB}, make: (*reader).embedding},
	{name: "LoHa", tell: []part{hada1A, hada1B, hada2A, hada2B, hada1T, hada2T}, need: []part{hada1A, hada1B, hada2A, hada2B}, make: (*reader).hadamard},
	{
		name: "LoKr", tell: []part{kron1, kron1A, kron1B, kron2, kron2A, kron2B, kron2T},
		either: [][]part{{kron1}, {kron1A, kron1B}, {kron2}, {kron2A, kron2B}}, make: (*reader).kronecker,
	},
	{name: "a difference", tell: []part{diff}, make: (*reader).whole},
	{name: "a new weight", tell: []part{set}, make: (*reader).whole},
}

// of returns the name of a tensor that tells the kind, "" where none is there, and what
// lacks beside it.
func (k *kindOfChange) of(m *module) (there, lacks string) {
	for _, p := range k.tell {
		if t, ok := m.parts[p]; ok {
			there = t.Name
			break
		}
	}
	if there == "" {
		return "", ""
	}
	for _, p := range k.need {
		if _, ok := m.parts[p]; !ok {
			return there, endOf(p)
		}
	}
	for i := 0; i < len(k.either); i += 2 {
		if !m.has(k.either[i]) && !m.has(k.either[i+1]) {
			return there, endOf(k.either[i][0])
		}
	}
	return there, ""
}

func (m *module) has(parts []part) bool {
	return !slices.ContainsFunc(parts, func(p part) bool { _, ok := m.parts[p]; return !ok })
}

// kind is the change of the module's weight, nil for none.
func (m *module) kind() *kindOfChange {
	for i := range kindsOfChange {
		if there, _ := kindsOfChange[i].of(m); there != "" {
			return &kindsOfChange[i]
		}
	}
	return nil
}

// endOf is the end of the name that most files give a part.
func endOf(p part) string {
	for _, e := range ends {
		if e.part == p {
			return e.end
		}
	}
	return ""
}
