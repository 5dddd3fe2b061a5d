package plan

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/storage"
)

// TestParseRule: a rule would mean something else than what was written.
func TestParseRule(t *testing.T) {
	tests := []struct {
		text, expr string
		want       storage.Rule
	}{
		{`\.attn\.=uint8`, `\.attn\.`, storage.Rule{Layer: storage.Settings{Dtype: "uint8"}}},
		{`\.attn\.=uint8,group-size=64`, `\.attn\.`, storage.Rule{Layer: storage.Settings{Dtype: "uint8", GroupSize: new(64)}}},
		{`a=group-size=-1, scale=row , dtype=int8`, `a`, storage.Rule{Layer: storage.Settings{Dtype: "int8", GroupSize: new(-1), Scale: "row"}}},
		{`a=sdnq:float8_e4m3fn`, `a`, storage.Rule{Layer: storage.Settings{Dtype: "sdnq:float8_e4m3fn"}}},
		{`a=int8_tensorwise`, `a`, storage.Rule{Layer: storage.Settings{Dtype: "int8_tensorwise"}}},
		{`a=fp8`, `a`, storage.Rule{Layer: storage.Settings{Dtype: "fp8"}}},
		{`a=keep`, `a`, storage.Rule{Keep: true}},
		{`a=kind=linear,uint4`, `a`, storage.Rule{Kind: "linear", Layer: storage.Settings{Dtype: "uint4"}}},
		{`a=dequantize-fp32=false,exact-reference,allow-nonfinite=true`, `a`,
			storage.Rule{Layer: storage.Settings{DequantizeFP32: new(false), ExactReference: new(true), AllowNonfinite: new(true)}}},
		{`[=]=keep`, `[=]`, storage.Rule{Keep: true}},
		{`[]=]=keep`, `[]=]`, storage.Rule{Keep: true}},
		{`[^]=]=keep`, `[^]=]`, storage.Rule{Keep: true}},
		{`[\]=]=keep`, `[\]=]`, storage.Rule{Keep: true}},
		{`[(]=keep`, `[(]`, storage.Rule{Keep: true}},
		{`(?=x)a=keep`, `(?=x)a`, storage.Rule{Keep: true}},
		{`((a=)|b)=keep`, `((a=)|b)`, storage.Rule{Keep: true}},
		{`(?<=blocks\.)0=keep`, `(?<=blocks\.)0`, storage.Rule{Keep: true}},
		{`(?P<n>a)(?P=n)=keep`, `(?P<n>a)(?P=n)`, storage.Rule{Keep: true}},
		{`a\==keep`, `a\=`, storage.Rule{Keep: true}},
		{`\(=keep`, `\(`, storage.Rule{Keep: true}},
		{`\[=keep`, `\[`, storage.Rule{Keep: true}},
		{`=keep`, ``, storage.Rule{Keep: true}},
		{`ü=keep`, `ü`, storage.Rule{Keep: true}},
	}
	for _, tt := range tests {
		r, err := ParseRule(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		tt.want.Pattern, tt.want.Text = tt.expr, tt.text
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
