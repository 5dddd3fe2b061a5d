package preset

import "strings"

// Kind is what a module does with the weight that it reads. It decides whether, and
// along which axis, SDNQ quantizes the weight.
type Kind string

// The kinds. Other is what SDNQ never quantizes: raw parameters, fused experts,
// routers, modules of classes that it does not know.
const (
	Linear          Kind = "linear"
	Embedded        Kind = "embedding"
	Conv1d          Kind = "conv1d"
	Conv2d          Kind = "conv2d"
	Conv3d          Kind = "conv3d"
	ConvTranspose1d Kind = "conv-transpose1d"
	ConvTranspose2d Kind = "conv-transpose2d"
	ConvTranspose3d Kind = "conv-transpose3d"
	Norm            Kind = "norm"
	Other           Kind = "other"
)

// Conv reports whether k is a convolution, transposed or not.
func (k Kind) Conv() bool { return strings.HasPrefix(string(k), "conv") }

// Transposed reports whether k is a transposed convolution.
func (k Kind) Transposed() bool { return strings.HasPrefix(string(k), "conv-transpose") }

// Quantizable reports whether SDNQ quantizes the kind; conv and embedding say whether
// it is asked to quantize convolutions and embeddings.
func (k Kind) Quantizable(conv, embedding bool) bool {
	switch k {
	case Linear:
		return true
	case Embedded:
		return embedding
	}
	return conv && k.Conv()
}

// Channels returns the side of a shape that SDNQ compares with its minimum of channels.
func (k Kind) Channels(shape []int) int {
	switch {
	case k.Transposed():
		return shape[0]
	case k.Conv():
		return shape[1]
	}
	return shape[len(shape)-1]
}

// plain and transposed are the kinds by the number of dimensions.
var (
	plain      = [...]Kind{Other, Norm, Linear, Conv1d, Conv2d, Conv3d}
	transposed = [...]Kind{Other, Norm, Linear, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d}
)

// KindRule gives the kind of weights whose shape does not show it, or shows a wrong
// one: those with Part in their name and, unless Dims is 0, that many dimensions.
type KindRule struct {
	Dims int
	Part string
	Kind Kind
}

// Kind returns the kind of the module that reads a parameter with that name and shape.
func (p *Preset) Kind(param string, shape []int) Kind {
	layer, ok := strings.CutSuffix(param, ".weight")
	if !ok || p.inside[param] || len(shape) >= len(plain) {
		return Other
	}
	if len(shape) < 2 {
		return plain[len(shape)]
	}
	for _, rules := range [][]KindRule{p.rules(), kindRules} {
		for _, r := range rules {
			if (r.Dims == 0 || r.Dims == len(shape)) && strings.Contains(param, r.Part) {
				return r.Kind
			}
		}
	}
	switch {
	case len(shape) == 2 && Embedding(param):
		return Embedded
	case len(shape) > 2 && isTransposed(layer):
		return transposed[len(shape)]
	}
	return plain[len(shape)]
}

func (p *Preset) rules() []KindRule {
	if p.family == nil {
		return nil
	}
	return p.family.Kinds
}

// kindRules apply to every model: the classes of routers are unknown to SDNQ.
var kindRules = []KindRule{
	{2, ".mlp.gate.weight", Other},
	{2, ".mlp.router.weight", Other},
	{2, ".block_sparse_moe.gate.weight", Other},
	{2, ".ff_i.gate.weight", Other},
}

// Embedding reports whether a name is that of a token or position table: a weight of
// two dimensions that is looked up, not multiplied.
func Embedding(param string) bool {
	return oneOf(lastPart(strings.TrimSuffix(param, ".weight")), embeddings)
}

var embeddings = strings.Fields(`
	embed_tokens word_embeddings position_embeddings token_type_embeddings token_embedding
	position_embedding tok_embeddings token_embeddings embed_positions embed_in embedding embeddings
	embed wte wpe shared relative_attention_bias tokens_embed positions_embed word_embedding
	class_embedding codebook lookup_table
	pos_embed embedding_table addition_t_embedding cond_type_embed cond_type_embedding
	embed_image_indicator prior_token_embedding image_index_embedding`)

// isTransposed recognises transposed convolutions by the names that classes of
// diffusers, transformers and vocoders give them.
func isTransposed(layer string) bool {
	last := lastPart(layer)
	if oneOf(last, transposedNames) {
		return true
	}
	parent, ok := strings.CutSuffix(layer, "."+last) // a list of them, "ups.0"
	return ok && strings.Trim(last, "0123456789") == "" && oneOf(lastPart(parent), transposedLists)
}

var (
	transposedNames = strings.Fields(`
	conv_t1 conv_transpose conv_transpose1 conv_transpose2 convt_pre convtr deconv deconv1 deconv2
	transposed_convolution upscale_conv1 upscale_conv2 proj_out_conv up_sample`)
	transposedLists = strings.Fields(`ups upsamplers upsampler deconvs`)
)

func lastPart(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

func oneOf(s string, list []string) bool {
	for _, e := range list {
		if s == e {
			return true
		}
	}
	return false
}
