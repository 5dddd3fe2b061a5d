package convert

import (
	"fmt"
	"math"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestAppendTensor: a fingerprint is in recipes that people keep, so that what it is made of
// must stay what it was.
func TestAppendTensor(t *testing.T) {
	for _, tensor := range []safetensors.Tensor{
		{},
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{3, 4}, Offset: 128, Size: 24},
		{Name: "é \"quoted\"\n\x00\xff", Dtype: safetensors.F8_E4M3, Shape: []int{math.MaxInt, 0, 1}, Offset: math.MaxInt64, Size: 1},
	} {
		for _, shard := range []int{0, 162} {
			one := checkpoint.Tensor{Tensor: tensor, Shard: shard}
			got := string(appendTensor(nil, &one))
			if want := fmt.Sprintf("%q %s %v %d %d %d\n", one.Name, one.Dtype, one.Shape, one.Shard, one.Offset, one.Size); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}
