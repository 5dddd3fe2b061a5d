package preset

import (
	"cmp"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Addon is a kind of file that changes a model and is none: what loads it reads
// its tensors as plain ones.
type Addon struct {
	Name string // with its article
	// Names tell its tensors, anywhere in their names where a pattern does not
	// say otherwise.
	Names *regexp.Regexp
	// Alone is a tensor that tells it whatever else there is.
	Alone string
	// Keys of a header tell it too, with a part of what they say.
	Keys map[string]string
}

// addons are all that are known; the first that fits counts.
var addons = []Addon{
	{
		Name: "a LyCORIS file",
		Names: regexp.MustCompile(`[._](?:hada_[wt][12]|lokr_[wt][12]|oft_(?:blocks|diag|r)\b|boft_|glora_)|\.(?:[ab][12]\.weight|oft_[rs]|on_input)$` +
			`|\bia3_l\b|^lycoris_`),
		Keys: map[string]string{"ss_network_module": "lycoris", "modelspec.architecture": "/lycoris"},
	},
	{
		Name: "a LoRA",
		Names: regexp.MustCompile(`[._]lora[._](?:up|down|mid|A|B|linear_layer|embedding_[AB]|magnitude_vector)(?:[._]|$)|\.lora_[AB]$` +
			`|^lora_(?:unet|te\d?|transformer|prior)_|\.dora_scale$|\.diff(?:_b)?$|\.(?:set|reshape)_weight$|\bvera_(?:lambda_|[AB]$)|^base_model\.model\.`),
		Keys: map[string]string{"ss_network_module": "", "ss_network_dim": "", "lora_adapter_metadata": "", "modelspec.architecture": "/lora"},
	},
	{
		Name:  "a control LoRA",
		Alone: "lora_controlnet",
		Names: regexp.MustCompile(`^control_model\..*\.(?:up|down)$`),
	},
	{
		Name:  "a ControlNet-LLLite file",
		Names: regexp.MustCompile(`^lllite_`),
		Keys:  map[string]string{"lllite.version": "", "lllite.target_layers": ""},
	},
	{
		Name:  "an IP-Adapter",
		Names: regexp.MustCompile(`^(?:image_proj(?:_model)?|ip_adapter|adapter_modules)\.|[._]to_[kv]_ip\b|\.ip_adapter_(?:double|single)_stream_|^ip_(?:layers|image_proj)`),
	},
	{
		Name:  "a T2I-Adapter",
		Names: regexp.MustCompile(`^(?:adapter\.)?(?:body\.\d+\.(?:resnets\.\d+\.)?(?:block[12]|in_conv|out_conv|skep|down_opt|body\.\d+\.block[12])\.|conv_in\.)`),
	},
	{
		Name:  "a textual inversion embedding",
		Names: regexp.MustCompile(`^(?:emb_params|string_to_param\..*|clip_[lgh]|t5xxl|text_encoders_\d|<[^>]*>)$`),
		Keys:  map[string]string{"modelspec.architecture": "/textual-inversion"},
	},
	{
		Name:  "a hypernetwork",
		Names: regexp.MustCompile(`^(?:320|640|768|1024|1280|2048)\.[01]\.linear\.`),
		Keys:  map[string]string{"modelspec.architecture": "/hypernetwork"},
	},
}

// AddonOf returns what a checkpoint is that is no model, and what told it, or ""
// and "". Names tell it where their tensors hold more than half of all values: a
// model with a few of them is a model. A header's word counts where the names
// are those of no family, since a model that such a file was merged into may
// have kept it.
func AddonOf(header map[string]string, tensors iter.Seq2[string, []int]) (kind, why string) {
	for i, s := range sharesOf(tensors) {
		if s.most {
			return addons[i].Name, "there is " + s.first
		}
	}
	for i := range addons {
		key := addons[i].named(header)
		if key == "" {
			continue
		}
		if f, _, _ := newInventory(tensors).family(); f == nil {
			return addons[i].Name, "the header has " + key
		}
	}
	return "", ""
}

// named returns the key of a header that tells the kind, "" for none.
func (a *Addon) named(header map[string]string) string {
	for _, key := range slices.Sorted(maps.Keys(a.Keys)) {
		if text, ok := header[key]; ok && strings.Contains(strings.ToLower(text), a.Keys[key]) {
			return key
		}
	}
	return ""
}

// share is what of a checkpoint an addon's names tell.
type share struct {
	first  string // tensor of several values
	values int
	alone  bool // the tensor that tells it is there
	most   bool // of all values, or that tensor
}

// sharesOf are those of all addons. Blocks repeat their names but for a number:
// patterns are tried once for all.
func sharesOf(tensors iter.Seq2[string, []int]) []share {
	shares, all := make([]share, len(addons)), 0
	tried := map[string][]int{}
	var key []byte
	for name, shape := range tensors {
		n := 1
		for _, d := range shape {
			n *= d
		}
		all += n
		key = withoutNumbers(key[:0], name)
		told, ok := tried[string(key)]
		if !ok {
			told = addonsTold(name)
			tried[string(key)] = told
		}
		for _, i := range told {
			s := &shares[i]
			s.values += n
			if n > 1 || name == addons[i].Alone {
				s.first = cmp.Or(s.first, name)
			}
			s.alone = s.alone || name == addons[i].Alone
		}
	}
	for i := range shares {
		s := &shares[i]
		s.most = s.alone || s.values > all/2
	}
	return shares
}

// addonsTold are the places of the addons that a name tells.
func addonsTold(name string) (told []int) {
	for i := range addons {
		if name == addons[i].Alone || addons[i].Names.MatchString(name) {
			told = append(told, i)
		}
	}
	return told
}

// withoutNumbers appends a name without the numbers that stand between dots or
// underscores.
func withoutNumbers(b []byte, name string) []byte {
	for i := 0; i < len(name); i++ {
		b = append(b, name[i])
		if name[i] != '.' && name[i] != '_' {
			continue
		}
		end := i + 1
		for end < len(name) && '0' <= name[end] && name[end] <= '9' {
			end++
		}
		if end < len(name) && (name[end] == '.' || name[end] == '_') {
			i = end - 1
		}
	}
	return b
}
