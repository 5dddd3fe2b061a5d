package app

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/safetensors"
)

// InvokeAI reads SDNQ's layers with a loader of its own, without sdnq. This file has
// the rules of release 6.14 (invokeai/backend/quantization/sdnq): which files and keys
// it trusts, and what it does with the tensors.

// invokeAIClasses are the model classes that its loader supports.
var invokeAIClasses = []string{
	"FluxTransformer2DModel", "Flux2Transformer2DModel", "ZImageTransformer2DModel",
	"CLIPTextModel", "T5EncoderModel", "Qwen3ForCausalLM", "AutoencoderKL", "AutoencoderKLFlux2",
}

// reading is how InvokeAI interprets a layer's codes.
type reading string

const (
	asUint4 reading = "uint4"
	asInt5  reading = "int5"
	asCodes reading = "the stored numbers times their scales"
)

// invokeAIReadings are the dtypes that it knows by name; it interprets others by how
// they are stored.
var invokeAIReadings = map[string]reading{"uint4": asUint4, "int4": asUint4, "uint5": asInt5, "int5": asInt5, "int8": asCodes, "uint8": asCodes}

// readAs returns how it interprets a layer: by the dtype for which modules_dtype_dict
// lists the layer, else by weights_dtype if that has fewer than eight bits, else by the
// shapes.
func readAs(l SDNQLayer) reading {
	if r, ok := invokeAIReadings[l.Listed]; ok {
		return r
	}
	if r := invokeAIReadings[l.Global]; r != asCodes && r != "" && l.Global != "int4" {
		return r
	}
	if s := l.Scheme; s.Dtype.Storage == safetensors.U8 && s.GroupSize == -1 && slices.Contains([]int{16, 32, 64, 128}, s.Shape()[len(s.Shape())-1]) {
		return asUint4 // the width looks like that of a group of packed codes
	}
	return asCodes
}

// checkInvokeAI returns why it would not load a layer, or would restore other values.
func checkInvokeAI(l SDNQLayer) error {
	s := l.Scheme
	scale, zero, _ := s.DoubleQuant()
	switch {
	case s.Hadamard > 0:
		return errors.New("InvokeAI does not turn rotated weights back: leave out `Hadamard`")
	case s.Codebook:
		return errors.New("InvokeAI does not know codebooks: leave out `Codebook`")
	case scale+zero != "":
		return errors.New("InvokeAI does not know double quantization: leave out `ScaleDtype` and `ZeroPointDtype`")
	case s.ShapedForMatmul():
		return errors.New("InvokeAI does not know weights that are stored for quantized matmul: leave out `QuantizedMatmul`")
	case s.Kind == sdnq.Conv || s.Kind == sdnq.ConvTranspose:
		return checkInvokeAIConv(s)
	}
	return checkReading(l, readAs(l))
}

func checkInvokeAIConv(s *sdnq.Scheme) error {
	if plainCodes(s) != nil || s.Rank > 0 {
		return errors.New("InvokeAI loads convolutions with whole bytes, without groups and without a low-rank part alone: use int8")
	}
	return nil
}

func checkReading(l SDNQLayer, read reading) error {
	s := l.Scheme
	switch {
	case read == asCodes && (s.Dtype.Name == string(asUint4) || s.Dtype.Name == string(asInt5)):
		return fmt.Errorf("InvokeAI would not know that it is %s: %s", s.Dtype, l.untold())
	case read == asCodes:
		return plainCodes(s)
	case s.Dtype.Name != string(read):
		return fmt.Errorf("InvokeAI would read %s as %s: it takes %s", s.Dtype, read, invokeAILoads)
	case s.GroupSize == -2:
		return fmt.Errorf("InvokeAI does not know %s with one scale a tensor: use groups", s.Dtype)
	}
	return nil
}

// untold says where InvokeAI would look for the layer's dtype.
func (l SDNQLayer) untold() string {
	if l.Global == "" {
		return "it looks in quantization_config.json beside the weights, which `For` invokeai writes"
	}
	return "of a layer that differs it looks in modules_dtype_dict alone"
}

const invokeAILoads = "uint4 and int5, and int8, uint8, float8_e4m3fn and float8_e5m2 without groups"

// plainCodes returns an error unless the layer is stored as numbers in the weight's
// shape, which InvokeAI multiplies by the scales as they are.
func plainCodes(s *sdnq.Scheme) error {
	switch {
	case !storedAsValues(s.Dtype):
		return fmt.Errorf("InvokeAI does not load %s: it loads %s", s.Dtype, invokeAILoads)
	case s.GroupSize > 0:
		return fmt.Errorf("InvokeAI does not load %s in groups: use `GroupSize` -1", s.Dtype)
	}
	return nil
}

// storedAsValues reports whether codes of a dtype are stored as the numbers that they
// represent.
func storedAsValues(t *dtype.Type) bool {
	if t.Class == dtype.Integer {
		return t.Bits == 8 || t.Bits == 16
	}
	return t.Class == dtype.Native
}

// invokeAIDtype reports whether InvokeAI loads a dtype at all.
func invokeAIDtype(t *dtype.Type) bool {
	return t.Name == string(asUint4) || t.Name == string(asInt5) || storedAsValues(t)
}
