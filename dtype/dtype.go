// Package dtype is the table of the 176 types in which SDNQ stores a weight, and of
// their 36 aliases. Types are derived from rules for bits, exponent, mantissa and sign;
// their ranges and storage follow from these. Start with [Parse].
package dtype

import (
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Class says how a code represents a number.
type Class uint8

const (
	// Integer codes are whole numbers, two's complement when signed.
	Integer Class = iota
	// Native floats are float types of the safetensors format.
	Native
	// Packed floats have sign, exponent and mantissa bits but no infinities or NaN:
	// every code is finite.
	Packed
)

// Type describes how one value of a weight is stored.
type Type struct {
	Name     string
	Class    Class
	Bits     int
	Exponent int // exponent bits; 0 for integers
	Mantissa int // fraction bits; for integers the bits without the sign
	Unsigned bool
	// Min and Max bound the codes' values.
	Min, Max float64
	// Divisor is the value to which SDNQ maps a group's largest magnitude (signed
	// types) or range (unsigned types). It equals Max, except for uint9 to uint15,
	// where SDNQ's table has 2^bits, one more than the largest code.
	Divisor float64
	// Storage is the dtype of the stored tensor's elements.
	Storage safetensors.Dtype
}

// Bitpacked reports whether codes share storage words. Then the stored tensor has one
// dimension, and a weight must consist of whole blocks of words.
func (t *Type) Bitpacked() bool {
	return t.Class != Native && t.Bits < 32 && t.Bits != 8 && t.Bits != 16
}

// Bias returns the exponent bias of a packed float, 2^(exponent-1) - 1.
func (t *Type) Bias() int { return 1<<(t.Exponent-1) - 1 }

// Storable reports whether a weight can be stored in this type and restored. SDNQ's
// table has four types for which that fails: the 32-bit types, whose largest values
// overflow their casts, and float8_e8m0fnu, which has neither sign nor zero.
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

// Parse returns the type with a canonical name or an alias. The error suggests similar
// names.
func Parse(name string) (*Type, error) {
	if t := Lookup(name); t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("unknown dtype %q%s", name, suggest.Hint(name, Names()))
}

// Lookup returns the type with a canonical name or an alias, nil if there is none.
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
