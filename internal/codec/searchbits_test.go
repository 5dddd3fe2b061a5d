package codec

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/tiletest"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestSearchHasTheSameBitsOnEveryMachine: what is found on one processor is found on any
// other, also where one fuses multiplications and additions.
func TestSearchHasTheSameBitsOnEveryMachine(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 13))
	shape := []int{16, 512}
	w, moments := tiletest.Exact(r, shape[0]*shape[1]), tiletest.ExactMoments(r, shape[1])
	for _, c := range []struct {
		settings Settings
		weighed  bool
		want     string
	}{
		{Settings{Dtype: "nvfp4"}, false, "1e931d7c9f342f12"},
		{Settings{Dtype: "nvfp4"}, true, "0fbae3f0d7a7e0b9"},
		{Settings{Dtype: "float8_e4m3fn_rowwise"}, false, "940547e22c4d0d46"},
		{Settings{Dtype: "float8_e4m3fn_block3d"}, true, "a6dc1643625995cc"},
		{Settings{Dtype: "awq_w4a16"}, true, "b0940ce3eda144aa"},
		{Settings{Dtype: "convrot_w4a4"}, false, "0526276609489315"},
		{Settings{Dtype: "asym_w4a8_int8"}, false, "e92c2813ad15d783"},
		{Settings{Dtype: "int8_tensorwise"}, true, "394c84672476822a"},
		{Settings{Dtype: "svdquant_w4a4", SVDRank: 8, SVDRefit: 1}, false, "e55fc00c77323c67"},
		{Settings{Dtype: "svdquant_w4a4", SVDRank: 8}, true, "4924da468ebd1e0e"},
	} {
		c.settings.Search = true
		src := Source{Shape: shape, Dtype: safetensors.F32}
		if c.weighed {
			src.Moments = moments
		}
		f, err := Resolve(c.settings.Dtype, false)
		if err != nil {
			t.Fatal(err)
		}
		made, _, err := f.Make(src, c.settings)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := EncodeAll(made, w)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		for _, data := range stored {
			sum.Write(data)
		}
		if got := fmt.Sprintf("%x", sum.Sum(nil)[:8]); got != c.want {
			t.Errorf("%s, weighed %v: %s, want %s", c.settings.Dtype, c.weighed, got, c.want)
		}
	}
}
