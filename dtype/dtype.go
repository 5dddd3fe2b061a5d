// Package dtype is the table of the 176 types in which SDNQ stores a weight,
// and of their 36 aliases. A row is derived from rules (bits, exponent,
// mantissa, sign); ranges and storage follow from the row. Start with [Parse].
package dtype

import (
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Class says how a code becomes a number.
type Class uint8

const (
	// Integer codes are whole numbers, two's complement when signed.
	Integer Class = iota
	// Native floats are cast by value to a float type of the file format.
	Native
	// Packed floats are sign, exponent and mantissa bits without infinities or
	// NaN: every code is finite.
	Packed
)

// Type is one row of the table: how one value of a weight is stored.
type Type struct {
	Name     string
	Class    Class
	Bits     int
	Exponent int // exponent bits; 0 for integers
	Mantissa int // fraction bits; for integers the bits without the sign
	Unsigned bool
	// Min and Max bound the codes' values.
	Min, Max float64
	// Divisor is the value that SDNQ maps a group's largest magnitude (signed)
	// or its range (unsigned) to. It equals Max, but for uint9 to uint15, where
	// SDNQ's table is one above the largest code: 2^bits.
	Divisor float64
	// Storage is the dtype of the stored tensor's elements.
	Storage safetensors.Dtype
}

// Bitpacked reports whether codes share storage words: then the stored tensor
// is flat, and a weight must fill whole blocks of words.
func (t *Type) Bitpacked() bool {
	return t.Class != Native && t.Bits < 32 && t.Bits != 8 && t.Bits != 16
}

// Bias returns the exponent bias of a packed float, 2^(exponent-1) - 1.
func (t *Type) Bias() int { return 1<<(t.Exponent-1) - 1 }

// Storable reports whether a weight can be stored in this type and restored.
// The four that SDNQ's table holds but cannot use are the 32-bit types, whose
// largest values overflow their casts, and float8_e8m0fnu, which has neither
// sign nor zero.
func (t *Type) Storable() bool {
	return t.Bits < 32 && t.Name != "float8_e8m0fnu"
}

// String returns the canonical name.
func (t *Type) String() string { return t.Name }

var (
	all    = table()
	byName = index(all)
)

func index(types []*Type) map[string]*Type {
	m := make(map[string]*Type, len(types))
	for _, t := range types {
		m[t.Name] = t
	}
	return m
}

// All returns the 176 types, by bits, then in the order of the rules.
func All() []*Type { return slices.Clone(all) }

// Parse returns the type of a canonical name or an alias. The error names the
// nearest known names.
func Parse(name string) (*Type, error) {
	if t := Lookup(name); t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("unknown dtype %q%s", name, suggest.Hint(name, Names()))
}

// Lookup is Parse without an error: nil for an unknown name.
func Lookup(name string) *Type {
	if target, ok := aliases[name]; ok {
		name = target
	}
	return byName[name]
}

// Names returns all 212 names, canonical ones first.
func Names() []string {
	names := make([]string, 0, len(all)+len(aliases))
	for _, t := range all {
		names = append(names, t.Name)
	}
	return append(names, AliasNames()...)
}
