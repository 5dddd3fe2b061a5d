package plan

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// TestParseRule: a rule would mean something else than what was written.
func TestParseRule(t *testing.T) {
	tests := []struct {
		text, expr string
		want       Rule
	}{
		{`\.attn\.=uint8`, `\.attn\.`, Rule{Over: Overrides{"dtype": "uint8"}}},
		{`\.attn\.=uint8,group-size=64`, `\.attn\.`, Rule{Over: Overrides{"dtype": "uint8", "group-size": 64}}},
		{`a=group-size=-1, scale=row , dtype=int8`, `a`, Rule{Over: Overrides{"dtype": "int8", "group-size": -1, "scale": "row"}}},
		{`a=sdnq:float8_e4m3fn`, `a`, Rule{Over: Overrides{"dtype": "sdnq:float8_e4m3fn"}}},
		{`a=int8_tensorwise`, `a`, Rule{Over: Overrides{"dtype": "int8_tensorwise"}}},
		{`a=fp8`, `a`, Rule{Over: Overrides{"dtype": "fp8"}}},
		{`a=keep`, `a`, Rule{Keep: true}},
		{`a=kind=linear,uint4`, `a`, Rule{Kind: "linear", Over: Overrides{"dtype": "uint4"}}},
		{`a=dequantize-fp32=false,exact-reference,allow-nonfinite=true`, `a`,
			Rule{Over: Overrides{"dequantize-fp32": false, "exact-reference": true, "allow-nonfinite": true}}},
		{`[=]=keep`, `[=]`, Rule{Keep: true}},
		{`[]=]=keep`, `[]=]`, Rule{Keep: true}},
		{`[^]=]=keep`, `[^]=]`, Rule{Keep: true}},
		{`[\]=]=keep`, `[\]=]`, Rule{Keep: true}},
		{`[(]=keep`, `[(]`, Rule{Keep: true}},
		{`(?=x)a=keep`, `(?=x)a`, Rule{Keep: true}},
		{`((a=)|b)=keep`, `((a=)|b)`, Rule{Keep: true}},
		{`(?<=blocks\.)0=keep`, `(?<=blocks\.)0`, Rule{Keep: true}},
		{`(?P<n>a)(?P=n)=keep`, `(?P<n>a)(?P=n)`, Rule{Keep: true}},
		{`a\==keep`, `a\=`, Rule{Keep: true}},
		{`\(=keep`, `\(`, Rule{Keep: true}},
		{`\[=keep`, `\[`, Rule{Keep: true}},
		{`=keep`, ``, Rule{Keep: true}},
		{`ü=keep`, `ü`, Rule{Keep: true}},
	}
	for _, tt := range tests {
		r, err := ParseRule(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if r.Pattern.String() != tt.expr || r.Text != tt.text {
			t.Errorf("%s: pattern is %s, want %s", tt.text, r.Pattern, tt.expr)
		}
		r.Pattern, r.Text = nil, ""
		if tt.want.Over == nil {
			tt.want.Over = Overrides{}
		}
		if !reflect.DeepEqual(r, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.text, r, tt.want)
		}
	}
}

func TestParseRuleRefuses(t *testing.T) {
	tests := map[string]string{ // text to what the error must hold
		``:                          "want PATTERN=SETTINGS",
		`abc`:                       "want PATTERN=SETTINGS",
		`(a=b)`:                     "want PATTERN=SETTINGS",
		`[=keep`:                    "want PATTERN=SETTINGS",
		`a\=keep`:                   "want PATTERN=SETTINGS",
		`*=keep`:                    `pattern "*"`,
		`a)=keep`:                   `pattern "a)"`,
		`a=`:                        `unknown dtype ""`,
		`a=uint4,`:                  "two dtypes",
		`a=,uint4`:                  `unknown dtype ""`,
		`a=int17`:                   "int17",
		`a=float32`:                 "cannot store",
		`a=rotate`:                  "unknown dtype",
		`a=rank=8`:                  `unknown setting "rank"`,
		`a=keep=true`:               "keep takes no value",
		`a=keep,uint4`:              "keep stands alone",
		`a=uint4,keep`:              "keep stands alone",
		`a=keep,group-size=64`:      "keep stands alone",
		`a=keep,dequantize-fp32`:    "keep stands alone",
		`a=kind=linear,keep`:        "keep stands alone",
		`a=uint4,int8`:              "two dtypes, uint4 and int8",
		`a=uint4,dtype=int8`:        "two dtypes",
		`a=kind=conv9d`:             `kind "conv9d"`,
		`a=kind`:                    `kind ""`,
		`a=group-size`:              "not a whole number",
		`a=group-size=1.5`:          "not a whole number",
		`a=scale`:                   "scale wants a value",
		`a=scale=`:                  "scale wants a value",
		`a=dequantize-fp32=perhaps`: "want true or false",
		`a=exact-reference=`:        "want true or false",
	}
	for text, want := range tests {
		if _, err := ParseRule(text); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a usage error that holds %q", text, err, want)
		}
	}
}
