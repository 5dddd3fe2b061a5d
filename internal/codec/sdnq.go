package codec

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// sdnqFormat stores a layer as SDNQ does, every dtype of its table. In the
// comfy layout each layer describes itself; in the sdnq layout a config beside
// the tensors does.
var sdnqFormat = &Format{Name: "sdnq", Weighs: true, Takes: []string{"group-size", "search", "svd-rank", "svd-steps", "svd-refit"}, Refuse: refuseSDNQ, make: newSDNQ, Open: openSDNQ}

// formatVersion of the self-describing layer; a reader refuses a higher one.
const formatVersion = 1

func newSDNQ(src Source, s Settings) (Codec, pyjson.Object, error) {
	o, err := s.options(src)
	if err != nil {
		return nil, nil, err
	}
	c, err := newScheme(src.Shape, o)
	if err != nil {
		return nil, nil, err
	}
	return c, sdnqMetadata(Scheme(c), src), nil
}

// refuseSDNQ refuses names that do not exist, and a codebook of what has none.
func refuseSDNQ(s Settings) error {
	if s.GroupSize < -2 {
		return fmt.Errorf("group size %d: want -2, -1, 0 or more", s.GroupSize)
	}
	if _, ok := modelDtypes[s.ModelDtype]; !ok && s.ModelDtype != "" {
		return fmt.Errorf("model-dtype %s: want bf16, f16 or f32", s.ModelDtype)
	}
	o, err := s.options(Source{})
	if err == nil && s.Codebook && (o.Dtype.Class != dtype.Integer || !o.Dtype.Unsigned) {
		err = fmt.Errorf("%s has no codebook: only unsigned integers have", o.Dtype)
	}
	if err == nil {
		err = s.checkThreshold()
	}
	if err == nil && s.Dynamic {
		if _, err = s.Threshold(o.Dtype); err == nil && sdnq.DynamicOrder(o.Dtype, s.Codebook) == nil {
			err = fmt.Errorf("%s is not among the dtypes of the dynamic choice", o.Dtype)
		}
	}
	if err == nil && s.Hadamard && s.HadamardGroupSize < 1 {
		err = fmt.Errorf("hadamard-group-size %d: want 1 or more", s.HadamardGroupSize)
	}
	if err == nil && s.Search && s.StochasticRounding {
		err = fmt.Errorf("`Search` looks for the least error, and `StochasticRounding` rounds by chance: give one of them")
	}
	if err == nil {
		err = s.refuseRankSearch()
	}
	if err == nil && s.SVDRefit > 0 && s.StochasticRounding {
		err = fmt.Errorf("`SVDRefit` fits to what rounding leaves, and `StochasticRounding` rounds by chance: give one of them")
	}
	if err == nil && s.SVDRefit > 0 && s.SVDRank == 0 {
		err = fmt.Errorf("`SVDRefit` fits a low-rank part again: give `SVDRank`")
	}
	return err
}

// refuseRankSearch refuses numbers that a search for a low-rank part has not.
func (s Settings) refuseRankSearch() error {
	switch {
	case s.SVDSteps < 0:
		return fmt.Errorf("svd-steps %d: want 0 or more", s.SVDSteps)
	case s.SVDRefit < 0 || s.SVDRefit > mostRefits:
		return fmt.Errorf("`SVDRefit` %d: want 0 to %d", s.SVDRefit, mostRefits)
	}
	return nil
}

// mostRefits is how often a low-rank part may be fitted again, once for each reading of
// the weight: far more than gains anything.
const mostRefits = 64

// options are the settings as the arithmetic takes them.
func (s Settings) options(src Source) (o sdnq.Options, err error) {
	o = sdnq.Options{
		Kind: s.Kind, GroupSize: s.GroupSize, ScaleDtype: safetensors.F32, ModelDtype: s.modelDtype(src), SourceDtype: src.Dtype,
		Rank: s.SVDRank, RankSteps: s.SVDSteps, Refits: s.SVDRefit, Matmul: s.QuantizedMatmul, Codebook: s.Codebook, CodebookSteps: s.CodebookSteps, CodebookScale: s.CodebookScale,
		Stochastic: s.StochasticRounding, Seed: chancesOf(src.Name, s.Seed),
		ExactReference: s.ExactReference, AllowNonfinite: s.AllowNonfinite, Search: s.Search, Moments: src.Moments,
	}
	if s.CodebookSteps == 0 {
		o.CodebookSteps = -1
	}
	if s.SVDSteps == 0 {
		o.RankSteps = -1
	}
	if s.Kind == sdnq.Conv || s.Kind == sdnq.ConvTranspose {
		o.Matmul = s.QuantizedMatmulConv
	}
	if s.Hadamard {
		o.Hadamard = s.HadamardGroupSize
	}
	if o.Dtype, err = dtype.Parse(strings.TrimPrefix(s.Dtype, "sdnq:")); err != nil {
		return o, err
	}
	if s.QuantizedMatmulDtype != "" {
		if o.MatmulDtype, err = sdnq.ParseMatmulDtype(s.QuantizedMatmulDtype); err != nil {
			return o, err
		}
	}
	return s.stores(o)
}

// chancesOf gives every layer chances of its own.
func chancesOf(layer string, seed int) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", seed, layer)
	return h.Sum64()
}

// stores adds the dtypes of scales and zero points. Where either is set, and
// be it "none", scales are F32 before.
func (s Settings) stores(o sdnq.Options) (sdnq.Options, error) {
	if !s.DequantizeFP32 && s.ScaleDtype == "" && s.ZeroPointDtype == "" {
		o.ScaleDtype = o.ModelDtype
	}
	var err error
	if o.ScaleStore, err = storeDtype(s.ScaleDtype); err == nil {
		o.ZeroPointStore, err = storeDtype(cmp.Or(s.ZeroPointDtype, s.ScaleDtype))
	}
	return o, err
}

func storeDtype(name string) (*dtype.Type, error) {
	if name == "" || name == "none" {
		return nil, nil
	}
	return dtype.Parse(name)
}

func newScheme(shape []int, o sdnq.Options) (Codec, error) {
	c, err := sdnq.NewScheme(shape, o)
	if err != nil {
		return nil, err
	}
	return c, nil
}

var kindNames = map[sdnq.Kind]string{sdnq.Embedding: "embedding", sdnq.Conv: "conv", sdnq.ConvTranspose: "conv_transpose"}

// KindName is what the JSON calls a kind, with a convolution's dimensions, "" of
// a linear layer.
func KindName(s *sdnq.Scheme) string {
	name := kindNames[s.Kind]
	if s.Kind == sdnq.Conv || s.Kind == sdnq.ConvTranspose {
		name += fmt.Sprintf("%dd", len(s.Shape())-2)
	}
	return name
}

func sdnqMetadata(s *sdnq.Scheme, src Source) pyjson.Object {
	o := pyjson.Object{
		{Key: "format", Value: "sdnq"},
		{Key: "format_version", Value: formatVersion},
		{Key: "weights_dtype", Value: s.Dtype.Name},
		{Key: "group_size", Value: s.GroupSize},
		{Key: "orig_shape", Value: src.Shape},
		{Key: "orig_dtype", Value: torchName(src.Dtype)},
	}
	if s.Kind != sdnq.Linear {
		o = append(o, pyjson.Member{Key: "kind", Value: KindName(s)})
	}
	for _, ofScales := range []bool{false, true} {
		for _, f := range fields {
			if f.stored != nil && f.ofScales == ofScales {
				o = append(o, f.stored(s)...)
			}
		}
	}
	return o
}

// says is a member where it applies.
func says(applies bool, key string, value any) pyjson.Object {
	if !applies {
		return nil
	}
	return pyjson.Object{{Key: key, Value: value}}
}

func scaleStore(s *sdnq.Scheme) string {
	scale, _, _ := s.DoubleQuant()
	return scale
}

// zeroPointStore is the dtype that was asked for where the codes are shaped for
// matmul and no dtype of the scales tells as much.
func zeroPointStore(s *sdnq.Scheme) string {
	scale, zero, _ := s.DoubleQuant()
	if s.ShapedForMatmul() && scale == "" {
		zero = cmp.Or(zero, s.ZeroAsked())
	}
	return zero
}

func scalesByCodebook(s *sdnq.Scheme) bool {
	_, _, book := s.DoubleQuant()
	return book
}

func openSDNQ(l *Stored) (Codec, error) {
	if err := checkVersion(l.Metadata); err != nil {
		return nil, err
	}
	shape, err := ints(l.Metadata, "orig_shape")
	if err != nil {
		return nil, err
	}
	o, err := storedOptions(l)
	if err != nil {
		return nil, err
	}
	o.Stored = true
	if err := fits(o, shape); err != nil {
		return nil, err
	}
	c, err := newScheme(shape, o)
	if err != nil {
		return nil, err
	}
	if s := Scheme(c); s.GroupSize != o.GroupSize || o.Hadamard > 0 && s.Hadamard != o.Hadamard {
		return nil, fmt.Errorf("group size %d or rotation of %d does not fit shape %v", o.GroupSize, o.Hadamard, shape)
	}
	return c, match(c, l)
}

// storedOptions are what a layer's JSON says.
func storedOptions(l *Stored) (sdnq.Options, error) {
	s, err := Settings{DequantizeFP32: true, CodebookSteps: 1}.FromConfig(l.Metadata)
	if err != nil {
		return sdnq.Options{}, err
	}
	if s.Kind, err = storedKind(l.Metadata); err != nil {
		return sdnq.Options{}, err
	}
	s.QuantizedMatmulConv = s.QuantizedMatmul
	o, err := s.options(Source{})
	o.ModelDtype = l.Tensors[tile.SVDUp].Dtype // of the factors
	o.ScaleDtype = storedScaleDtype(l)
	if s.ZeroPointDtype == "" {
		o.ZeroPointStore = nil // the JSON says it where it is
	}
	return o, err
}

func storedKind(o pyjson.Object) (sdnq.Kind, error) {
	v, ok := o.Get("kind")
	if !ok || v == "linear" {
		return sdnq.Linear, nil
	}
	name, _ := v.(string)
	for kind, known := range kindNames {
		dims, found := strings.CutPrefix(name, known)
		if found && (dims == "" && kind == sdnq.Embedding || len(dims) == 2 && strings.Contains("1d2d3d", dims)) {
			return kind, nil
		}
	}
	return 0, fmt.Errorf("kind: %s is not supported", pyjson.Dump(v))
}

func checkVersion(o pyjson.Object) error {
	version, err := integer(o, "format_version")
	if err == nil && version > formatVersion {
		err = fmt.Errorf("format sdnq, version %d: this program reads version %d", version, formatVersion)
	}
	return err
}

// fits refuses what no writer writes, before a search for it takes long.
func fits(o sdnq.Options, shape []int) error {
	axis := 1
	if o.Kind == sdnq.ConvTranspose {
		axis = 0
	}
	if len(shape) < 2 {
		return fmt.Errorf("%d dimensions, want 2 or more", len(shape))
	}
	if o.GroupSize == 0 || o.GroupSize > 0 && shape[axis]%o.GroupSize != 0 {
		return fmt.Errorf("group size %d does not fit shape %v", o.GroupSize, shape)
	}
	return nil
}

// storedScaleDtype: without dequantize_fp32 the scales have the dtype of the
// model, which is that of the source if they do not say; types beyond 16384
// keep F32 all the same.
func storedScaleDtype(l *Stored) safetensors.Dtype {
	if v, _ := l.Metadata.Get("dequantize_fp32"); v != false {
		return safetensors.F32
	}
	if d := l.Tensors[tile.Scale].Dtype; d == safetensors.BF16 || d == safetensors.F16 {
		return d
	}
	name, _ := l.Metadata.Get("orig_dtype")
	if d, ok := OrigDtype(name); ok {
		return d
	}
	return safetensors.F32
}

// FromConfig opens a layer of the sdnq layout, where the shape follows from the
// tensors: settings are the config's, hint is nil, [rows] or the whole shape
// from elsewhere, for the shapes that they do not tell.
func FromConfig(l *Stored, s Settings, hint []int) (Codec, error) {
	o, err := s.options(Source{Dtype: l.Tensors[tile.Scale].Dtype})
	if err != nil {
		return nil, err
	}
	o.ModelDtype = l.Tensors[tile.SVDUp].Dtype // of the factors
	var first error
	for _, c := range candidates(l, o, hint) {
		o.GroupSize, o.Kind = c.group, c.kind
		o.Matmul = s.QuantizedMatmul
		if c.kind != sdnq.Linear {
			o.Matmul = s.QuantizedMatmulConv
		}
		codec, err := newScheme(c.shape, o)
		if err == nil {
			err = match(codec, l)
		}
		if err == nil {
			return codec, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = fmt.Errorf("its shape cannot be told from packed %s with a single scale", o.Dtype)
	}
	return nil, first
}

// candidate is a shape that a layer may have had, and a group size.
type candidate struct {
	shape []int
	group int
	kind  sdnq.Kind
}

// candidates are what the tensors can mean: the scale tells rows and groups,
// the codes how many values there are.
func candidates(l *Stored, o sdnq.Options, hint []int) []candidate {
	weight, scale := l.Tensors[tile.Weight].Shape, l.Tensors[tile.Scale].Shape
	values := sdnq.StoredValues(o.Dtype, weight)
	var list []candidate
	add := func(rows, group int) {
		if rows > 0 && values%rows == 0 {
			list = append(list, candidate{[]int{rows, values / rows}, group, sdnq.Linear})
		}
	}
	if len(hint) > 1 {
		list = hinted(hint, o.GroupSize)
	}
	levels := 1
	if o.Codebook {
		levels = codebook.CodebookLevels(o.Dtype)
	}
	if len(scale) == 3 && scale[0] > 0 && scale[1] > 0 {
		add(scale[0], values/scale[0]/scale[1])
	}
	if len(scale) == 2 && scale[0] > 1 {
		add(scale[0], -1)
	}
	if len(scale) == 2 && scale[0] == 1 && scale[1] > 1 && o.Matmul {
		add(scale[1], -1) // stored transposed
	}
	if len(weight) == 2 && !o.Dtype.Bitpacked() {
		add(weight[0], -2)
		add(weight[1], -2)
	}
	list = append(list, convolutions(scale, values, levels)...)
	if len(hint) == 1 {
		add(hint[0], o.GroupSize)
		add(hint[0], -2)
	}
	return list
}

// hinted are the kinds and groups that a known shape leaves open.
func hinted(shape []int, group int) []candidate {
	var list []candidate
	for _, g := range []int{group, -2, -1} {
		for _, kind := range []sdnq.Kind{sdnq.Linear, sdnq.Embedding, sdnq.Conv, sdnq.ConvTranspose} {
			list = append(list, candidate{shape, g, kind})
		}
	}
	return list
}

// convolutions are what the scale of one can mean: [out, 1, kernel…],
// [out, groups, 1, kernel…], or transposed [1, out, kernel…], with levels of a
// codebook in place of 1.
func convolutions(scale []int, values, levels int) []candidate {
	var list []candidate
	add := func(kind sdnq.Kind, at, groups int, kernel []int) {
		places := tile.Numel(kernel)
		if scale[at] < 1 || places < 1 || groups < 1 || values%(scale[at]*places) != 0 {
			return
		}
		in := values / scale[at] / places
		c := candidate{slices.Concat([]int{scale[at], in}, kernel), -1, kind}
		if kind == sdnq.ConvTranspose {
			c.shape[0], c.shape[1] = in, scale[at]
		}
		if groups > 1 {
			c.group = in / groups
		}
		list = append(list, c)
	}
	if len(scale) >= 3 && scale[1] == levels {
		add(sdnq.Conv, 0, 1, scale[2:])
	}
	if len(scale) >= 4 && scale[2] == levels {
		add(sdnq.Conv, 0, scale[1], scale[3:])
	}
	if len(scale) >= 3 && scale[0] == levels {
		add(sdnq.ConvTranspose, 1, 1, scale[2:])
	}
	return list
}

// OrigDtype reads the name of a float dtype as torch prints it.
func OrigDtype(name any) (safetensors.Dtype, bool) {
	s, _ := name.(string)
	for _, d := range []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16} {
		if strings.TrimPrefix(s, "torch.") == strings.TrimPrefix(torchName(d), "torch.") {
			return d, true
		}
	}
	return 0, false
}

func torchName(d safetensors.Dtype) string {
	switch d {
	case safetensors.BF16:
		return "torch.bfloat16"
	case safetensors.F16:
		return "torch.float16"
	}
	return "torch.float32"
}

func integer(o pyjson.Object, key string) (int, error) {
	v, _ := o.Get(key)
	return toInt(key, v)
}

func toInt(key string, v any) (int, error) {
	n, ok := v.(json.Number)
	i, err := strconv.Atoi(n.String())
	if !ok || err != nil {
		return 0, fmt.Errorf("%s: %s, want a whole number", key, pyjson.Dump(v))
	}
	return i, nil
}

func ints(o pyjson.Object, key string) ([]int, error) {
	v, _ := o.Get(key)
	items, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s: %s, want a list", key, pyjson.Dump(v))
	}
	list := make([]int, len(items))
	for i, item := range items {
		n, err := toInt(key, item)
		if err != nil {
			return nil, err
		}
		if n < 0 || n > 1<<40 {
			return nil, fmt.Errorf("%s: %v is not a shape", key, items)
		}
		list[i] = n
	}
	return list, nil
}
