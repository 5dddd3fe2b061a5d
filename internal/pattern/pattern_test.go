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
