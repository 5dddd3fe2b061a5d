package pattern

import (
	"strings"
	"testing"
)

// TestMatchEqualsPython: what is true here is what re.search found in Python.
func TestMatchEqualsPython(t *testing.T) {
	const name = "blocks.10.attn.to_q.weight"
	tests := []struct {
		pattern string
		want    bool
	}{
		{`attn`, true},
		{`^attn`, false},
		{`\.attn\.`, true},
		{`blocks\.(?!0\.)\d+\.`, true},
		{`blocks\.(?!10\.)\d+\.`, false},
		{`(?<=attn\.)to_q`, true},
		{`(?P<n>\d)\d.*(?P=n)`, false},
		{`(?P<n>o).*(?P=n)`, true},
		{`weight$`, true},
		{`weight\Z`, true},
		{`\\Z`, false},
		{`(?i)ATTN`, true},
		{`to_[qkv]`, true},
		{``, true},
		{`^blocks\.10\.attn\.to_q\.weight$`, true},
		{`^blocks.10.attn.to_q.weight$`, true},
		{`^blocks\.10\.attn\.to_q$`, false},
		{`^blocks\d10\.attn\.to_q\.weight$`, false},
		{`^$`, false},
	}
	for _, tt := range tests {
		p, err := Compile(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		if got, err := p.Match(name); err != nil || got != tt.want {
			t.Errorf("%s in %s: %v, %v, want %v", tt.pattern, name, got, err, tt.want)
		}
	}
}

func TestCompileNamesThePattern(t *testing.T) {
	for _, text := range []string{`(`, `[`, `*a`, `a**`, `(?P<n`} {
		if _, err := Compile(text); err == nil || !strings.Contains(err.Error(), "pattern") {
			t.Errorf("Compile(%q): %v", text, err)
		}
	}
}

// TestLiteral: a pattern of one name finds that name, and before a line's end, as
// Python's $ does.
func TestLiteral(t *testing.T) {
	p, err := Compile(`^a\.b\[0\]$`)
	if err != nil || p.re != nil {
		t.Fatal("no literal", err)
	}
	for name, want := range map[string]bool{"a.b[0]": true, "a.b[0]\n": true, "a.b[0]\n\n": false, "a.b[0]x": false, "xa.b[0]": false, "aXb[0]": false} {
		if got, err := p.Match(name); err != nil || got != want {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	for _, text := range []string{`^a\d$`, `^a|b$`, `^(a)$`, `^a`, `^a\\$`, `^a\n$`, `^a{2}$`} {
		if name, ok := literal(text); ok && text != `^a\\$` {
			t.Errorf("%s is taken for %q", text, name)
		}
	}
}
