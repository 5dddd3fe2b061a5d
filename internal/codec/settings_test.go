package codec

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/storage"
)

// example is a value that is no setting's default, as text.
func example(f Field) string {
	switch v := f.Default().(type) {
	case bool:
		return fmt.Sprint(!v)
	case int:
		return fmt.Sprint(v + 3)
	}
	return "0.5"
}

// TestEverySettingHasARow: a field without a row could be said and would do nothing,
// and one under another's flag would do something else.
func TestEverySettingHasARow(t *testing.T) {
	said := reflect.TypeFor[storage.Settings]()
	if said.NumField() != len(fields) {
		t.Errorf("%d fields, %d rows", said.NumField(), len(fields))
	}
	inEffect := reflect.TypeFor[Settings]()
	if want := len(fields) + 2; inEffect.NumField() != want { // and the kind, and whether 0 was said of a rank
		t.Errorf("%d settings in effect, want %d", inEffect.NumField(), want)
	}
	for _, f := range fields {
		var g storage.Settings
		if f.Said(&g) {
			t.Errorf("%s: something is said where nothing is", f.Flag)
		}
		if err := Parse(&g, f.Flag, example(f), true); err != nil || !f.Said(&g) {
			t.Errorf("%s: %v", f.Flag, err)
			continue
		}
		name := strings.ReplaceAll(f.Flag, "-", "")
		if got, want := strings.ToLower(g.String()), fmt.Sprintf("{%s: %s}", name, example(f)); got != want {
			t.Errorf("%s says %s, want %s", f.Flag, got, want)
		}
		s := Default().With(g)
		if got := fmt.Sprint(f.get(&s)); got != example(f) || s == Default() {
			t.Errorf("%s is %s in effect, want %s", f.Flag, got, example(f))
		}
		f.reset(&s)
		if s != Default() {
			t.Errorf("%s: without it, there is %+v", f.Flag, s)
		}
	}
}

// TestSettingsInConfigs: what a config says of a layer must be read again as it was.
func TestSettingsInConfigs(t *testing.T) {
	for _, f := range fields {
		if f.Key == "" {
			continue
		}
		var g storage.Settings
		if err := Parse(&g, f.Flag, example(f), true); err != nil {
			t.Fatal(err)
		}
		s := Default().With(g)
		o, err := pyjson.ParseObject([]byte(pyjson.Dump(s.ConfigKeys())))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Default().FromConfig(o); err != nil || again != s {
			t.Errorf("%s: %+v, %v, want %+v", f.Flag, again, err, s)
		}
		again := Default().With(s.Given())
		if again.NoRank = s.NoRank; again != s { // 0 is among what is given
			t.Errorf("%s: %+v, want %+v", f.Flag, again, s)
		}
		for _, wrong := range []any{[]any{}, "text", json.Number("1.5"), true} {
			again, err := Default().FromConfig(pyjson.Object{{Key: f.Key, Value: wrong}})
			_, isText := f.Default().(string)
			_, isBool := f.Default().(bool)
			fits := isText && wrong == "text" && f.Key != "dynamic_loss_threshold" || isText && wrong == json.Number("1.5") || isBool && wrong == true
			if (err == nil) != fits {
				t.Errorf("%s: %v is taken as %+v, %v", f.Key, wrong, again, err)
			}
		}
	}
}

// TestTakesNamesSettings: a format that lists a setting under another name would
// refuse it.
func TestTakesNamesSettings(t *testing.T) {
	for _, format := range Formats() {
		for _, flag := range format.Takes {
			if !slices.ContainsFunc(fields, func(f Field) bool { return f.Flag == flag && f.of == ofSome }) {
				t.Errorf("%s takes %s, which is no setting of some formats", format.Name, flag)
			}
		}
	}
	for _, f := range fields {
		taken := slices.ContainsFunc(Formats(), func(format *Format) bool { return format.takes(&f) })
		if !taken {
			t.Errorf("no format takes %s", f.Flag)
		}
	}
}

// TestTold: a stored layer's settings must make such a layer again, also those that
// its JSON says.
func TestTold(t *testing.T) {
	for _, tt := range []struct {
		said storage.Settings
		want string
	}{
		{storage.Settings{Dtype: "int8_tensorwise", ConvRot: new(true), ConvRotGroupSize: new(64), FullPrecisionMatmul: new(true)},
			"{Dtype: int8_tensorwise, Scale: row, ConvRot: true, ConvRotGroupSize: 64, FullPrecisionMatmul: true}"},
		{storage.Settings{Dtype: "int8_tensorwise", Scale: "tensor"}, "{Dtype: int8_tensorwise, Scale: tensor}"},
		{storage.Settings{Dtype: "float8_e4m3fn_blockwise", BlockSize: new(64)}, "{Dtype: float8_e4m3fn_blockwise, BlockSize: 64}"},
		{storage.Settings{Dtype: "float8_e4m3fn_block3d", BlockSize: new(32)}, "{Dtype: float8_e4m3fn_block3d, BlockSize: 32}"},
		{storage.Settings{Dtype: "asym_w4a8_int8", Bits: new(6), GroupSize: new(32), ConvRotGroupSize: new(16)},
			"{Dtype: asym_w4a8_int8, GroupSize: 32, ConvRotGroupSize: 16, Bits: 6}"},
		{storage.Settings{Dtype: "awq_w4a16", GroupSize: new(32)}, "{Dtype: awq_w4a16, GroupSize: 32}"},
	} {
		f, err := Resolve(tt.said.Dtype, false)
		if err != nil {
			t.Fatal(err)
		}
		c, metadata, err := f.Make(Source{Shape: []int{128, 256}}, Default().With(tt.said))
		if err != nil {
			t.Errorf("%v: %v", tt.said, err)
			continue
		}
		metadata, err = pyjson.ParseObject([]byte(pyjson.Dump(metadata)))
		if err != nil {
			t.Fatal(err)
		}
		if got := f.SettingsFromMetadata(metadata, c).String(); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.said, got, tt.want)
		}
	}
}
