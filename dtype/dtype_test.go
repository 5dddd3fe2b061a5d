package dtype

import (
	"bufio"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestTableEqualsReference reads the table that sdnq itself prints: a wrong
// row would store weights that no reader restores.
func TestTableEqualsReference(t *testing.T) {
	f, err := os.Open("testdata/sdnq-0.2.8.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		names++
		compareRow(t, strings.Split(lines.Text(), "\t"))
	}
	if names != 212 || len(All()) != 176 || len(AliasNames()) != 36 || len(Names()) != 212 {
		t.Errorf("reference has %d names; table has %d types, %d aliases", names, len(All()), len(AliasNames()))
	}
}

// compareRow takes name, bits, exponent, mantissa, unsigned, integer, min, max.
func compareRow(t *testing.T, f []string) {
	t.Helper()
	row, err := Parse(f[0])
	if err != nil {
		t.Error(err)
		return
	}
	number := func(s string) float64 { v, _ := strconv.ParseFloat(s, 64); return v }
	ints := []struct {
		what      string
		got, want int
	}{
		{"bits", row.Bits, int(number(f[1]))},
		{"exponent", row.Exponent, int(number(f[2]))},
		{"mantissa", row.Mantissa, int(number(f[3]))},
	}
	for _, c := range ints {
		if c.got != c.want {
			t.Errorf("%s: %s is %d, want %d", f[0], c.what, c.got, c.want)
		}
	}
	if got := strconv.FormatBool(row.Unsigned); got != f[4] {
		t.Errorf("%s: unsigned is %s, want %s", f[0], got, f[4])
	}
	if got := strconv.FormatBool(row.Class == Integer); got != f[5] {
		t.Errorf("%s: integer is %s, want %s", f[0], got, f[5])
	}
	if row.Min != number(f[6]) || row.Divisor != number(f[7]) {
		t.Errorf("%s: min, max are %g, %g, want %s, %s", f[0], row.Min, row.Divisor, f[6], f[7])
	}
}

// TestMaxFitsBits holds the bounds against the bits; the table of the
// reference does not for seven types, which are named here.
func TestMaxFitsBits(t *testing.T) {
	above := map[string]bool{"uint9": true, "uint10": true, "uint11": true, "uint12": true, "uint13": true, "uint14": true, "uint15": true}
	for _, row := range All() {
		if row.Class != Integer {
			continue
		}
		if codes := row.Max - row.Min + 1; codes != math.Ldexp(1, row.Bits) {
			t.Errorf("%s has %g codes in %d bits", row, codes, row.Bits)
		}
		if (row.Divisor != row.Max) != above[row.Name] {
			t.Errorf("%s: divisor %g, max %g", row, row.Divisor, row.Max)
		}
	}
}

func TestStorableCount(t *testing.T) {
	n := 0
	for _, row := range All() {
		if row.Storable() {
			n++
		}
	}
	if n != 172 {
		t.Errorf("%d storable types, want 172", n)
	}
}

func TestParseUnknownNamesNearest(t *testing.T) {
	for name, want := range map[string]string{
		"int17":         `unknown dtype "int17", did you mean int7, int10 or int11?`,
		"float8_e4m3":   "float8_e4m3fn",
		"":              `unknown dtype ""`,
		"zzz":           `unknown dtype "zzz"`,
		"float4_e2m1fx": "float4_e2m1fn",
	} {
		if _, err := Parse(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want it to hold %q", name, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range Names() {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		row, err := Parse(name)
		if err != nil {
			return
		}
		if again, err := Parse(row.Name); err != nil || again != row {
			t.Errorf("%q is %v, whose own name is %v, %v", name, row, again, err)
		}
	})
}
