package codec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/suggest"
)

// further are names that the comfy layout takes beside those of SDNQ's table.
var further = map[string]string{"float8": "float8_e4m3fn"}

// native returns ComfyUI's own format, or convert_to_quant's, that a name or an
// alias of it means in the comfy layout, nil for none.
func native(name string) *Format {
	if to, ok := further[name]; ok {
		name = to
	}
	if t := dtype.Lookup(name); t != nil {
		name = t.Name
	}
	if f, err := ByName(name); err == nil && f != sdnqFormat {
		return f
	}
	return nil
}

// Aliases returns what else a format is called in the comfy layout.
func Aliases(name string) []string {
	names := dtype.Aliases(name)
	for alias, of := range further {
		if of == name {
			names = append(names, alias)
		}
	}
	return names
}

// dtypeNames are those that a layout takes.
func dtypeNames(sdnqLayout bool) []string {
	var names []string
	if !sdnqLayout {
		for _, f := range Formats() {
			if f != sdnqFormat {
				names = append(append(names, f.Name), Aliases(f.Name)...)
			}
		}
	}
	for _, name := range dtype.Names() {
		if dtype.Lookup(name).Storable() {
			names = append(names, name)
		}
	}
	return names
}

// otherPrograms are the formats of other programs by what they are called: the
// bits are those that the name says, or these. Floats have levels that lie
// closer at zero.
var otherPrograms = []struct {
	pattern *regexp.Regexp
	bits    int
	float   bool
}{
	{regexp.MustCompile(`^i?q(\d)(_|$)`), 0, false},                               // GGUF
	{regexp.MustCompile(`^(?:fp8|f8|e[45]m[23])`), 8, true},                       // PyTorch's and others' spellings
	{regexp.MustCompile(`^(?:nf|mxfp|mxf|nvfp|nvf|float|fp|f)(\d)`), 0, true},     // bitsandbytes, MX
	{regexp.MustCompile(`^w(\d)a\d+`), 0, false},                                  // compressed-tensors
	{regexp.MustCompile(`^(?:int|uint|i|u|load_in_)?_?(\d)_?bits?$`), 0, false},   // 8bit, int4_bit, load_in_4bit
	{regexp.MustCompile(`(?:gptq|awq|exl\d|hqq|autoround|bnb).*?(\d)`), 0, false}, // gptq-8bit
	{regexp.MustCompile(`^(?:gptq|awq|exl|hqq|autoround|bnb|gguf|q)`), 4, false},  // what they are used for
	{regexp.MustCompile(`^(?:int|uint|i|u|smoothquant|torchao)(\d)?`), 8, false},  // int8_something
}

// inKind returns the dtype of a layout that is nearest in kind to a format of
// another program, "" where the name tells nothing.
func inKind(name string, sdnqLayout bool) string {
	name = strings.ReplaceAll(strings.ToLower(name), "-", "_")
	for _, row := range otherPrograms {
		found := row.pattern.FindStringSubmatch(name)
		if found == nil {
			continue
		}
		bits := row.bits
		if len(found) > 1 && found[1] != "" {
			bits, _ = strconv.Atoi(found[1])
		}
		if row.float && strings.Contains(name, "e5m2") {
			return "float8_e5m2"
		}
		return ofBits(min(max(bits, 1), 8), row.float, sdnqLayout)
	}
	return ""
}

// ofBits is the dtype that a layout has for so many bits; in the comfy layout,
// one that ComfyUI loads.
func ofBits(bits int, float, sdnqLayout bool) string {
	switch {
	case bits == 8 && float:
		return "float8_e4m3fn"
	case bits == 8 && sdnqLayout:
		return "int8"
	case sdnqLayout:
		return fmt.Sprintf("uint%d", bits)
	case bits <= 4:
		return "nvfp4"
	}
	return "int8_tensorwise"
}

// unknownDtype is the error about a name that a layout does not take.
func unknownDtype(name string, sdnqLayout bool) error {
	if err := nearDtype(name, sdnqLayout, suggest.Words); err != nil {
		return err
	}
	if kin := inKind(name, sdnqLayout); kin != "" {
		return fmt.Errorf("unknown dtype %q: the nearest in kind is %s", name, kin)
	}
	if err := nearDtype(name, sdnqLayout, suggest.Related); err != nil {
		return err
	}
	return fmt.Errorf("unknown dtype %q: tensorpress formats lists them", name)
}

// nearDtype is an error that names the dtypes which are near in one sense, nil
// where none is.
func nearDtype(name string, sdnqLayout bool, find func(string, []string) []string) error {
	if near := asWide(name, find(name, dtypeNames(sdnqLayout))); len(near) > 0 {
		return fmt.Errorf("unknown dtype %q%s", name, suggest.Ask(near))
	}
	if near := asWide(name, find(name, dtypeNames(false))); len(near) > 0 { // one that the other layout takes
		return fmt.Errorf("unknown dtype %q, near %w", name, comfyAlone(native(near[0])))
	}
	return nil
}

var number = regexp.MustCompile(`\d+`)

// asWide leaves out the names of other numbers of bits than a name says that has
// one which every layout has: who types mxfp4 does not mean mxfp8.
func asWide(name string, near []string) []string {
	bits := number.FindString(name)
	if bits != "4" && bits != "8" {
		return near
	}
	return slices.DeleteFunc(near, func(one string) bool { return number.FindString(one) != bits })
}

// comfyAlone is the error about a format that the sdnq layout does not have.
func comfyAlone(f *Format) error {
	return fmt.Errorf("dtype %s exists in the comfy layout alone: say `Layout` comfy, or take %s, the nearest in the sdnq layout", f.Name,
		ofBits(f.Bits, strings.Contains(f.Name, "fp8") || strings.Contains(f.Name, "float8"), true))
}
