package preset

import (
	"cmp"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Addon is a kind of file that changes a model but is no model itself, such as a LoRA.
// Programs that load one read its tensors as plain numbers.
type Addon struct {
	Name string // with an article, "a LoRA"
	// Names matches names of the kind's tensors, at any place in a name unless the
	// pattern is anchored.
	Names *regexp.Regexp
	// Alone is a tensor that identifies the kind whatever else is in the file.
	Alone string
	// Keys are header entries that identify the kind, each with a text that its value
	// contains.
	Keys map[string]string
}

// addons are the known kinds; the first that fits counts.
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

// AddonOf returns the kind of a checkpoint that is no model, and what identified it;
// for a model both are "". Names identify the kind if their tensors hold more than half
// of all values, since a model may contain a few such tensors. The header identifies it
// only if the names fit no model family, because a model into which such a file was
// merged may have kept its header.
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

// named returns the header's key that identifies the kind, "" if it has none.
func (a *Addon) named(header map[string]string) string {
	for _, key := range slices.Sorted(maps.Keys(a.Keys)) {
		if text, ok := header[key]; ok && strings.Contains(strings.ToLower(text), a.Keys[key]) {
			return key
		}
	}
	return ""
}

// share is the part of a checkpoint that has the names of an addon.
type share struct {
	first  string // the first such tensor with more than one value
	values int
	alone  bool // the file has the addon's Alone
	most   bool // alone, or more than half of all values
}

// sharesOf returns the shares of all addons. Names of repeated blocks differ only in
// numbers, so patterns are tried once for all of them.
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

// addonsTold returns the indexes of the addons that a name fits.
func addonsTold(name string) (told []int) {
	for i := range addons {
		if name == addons[i].Alone || addons[i].Names.MatchString(name) {
			told = append(told, i)
		}
	}
	return told
}

// withoutNumbers appends a name to b without the numbers that stand between dots or
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
