package dtype

import (
	"fmt"
	"slices"
)

// aliases maps SDNQ's 36 short names to canonical ones.
var aliases = shortNames()

// AliasNames returns the 36 aliases, sorted.
func AliasNames() []string {
	names := make([]string, 0, len(aliases))
	for name := range aliases {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Aliases returns the aliases of a canonical name, sorted.
func Aliases(name string) []string {
	var names []string
	for _, alias := range AliasNames() {
		if aliases[alias] == name {
			names = append(names, alias)
		}
	}
	return names
}

// shortNames returns the aliases. fpN and ufpN are the floats with the usual split of N
// bits; where the safetensors format has a float of that width, they are that native
// type.
func shortNames() map[string]string {
	m := map[string]string{
		"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8_e4m3fn",
		"fp1": "float1_e1m0fnu", "ufp1": "float1_e1m0fnu", "int1": "uint1", "bool": "uint1",
	}
	exponents := map[int]int{2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 3, 8: 4, 9: 4}
	for bits := 2; bits <= 16; bits++ {
		e, ok := exponents[bits]
		if !ok {
			e = 5
		}
		m[fmt.Sprintf("ufp%d", bits)] = fmt.Sprintf("float%d_e%dm%dfnu", bits, e, bits-e)
		if bits != 8 && bits != 16 {
			m[fmt.Sprintf("fp%d", bits)] = fmt.Sprintf("float%d_e%dm%dfn", bits, e, bits-1-e)
		}
	}
	return m
}
