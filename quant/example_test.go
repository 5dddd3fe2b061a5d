package quant_test

import (
	"fmt"
	"log"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/quant"
)

// Four bits a value, a scale and a zero point for every four values.
func ExampleQuantize() {
	weight := []float32{0, 1, 2, 15, -1, -1, -1, -1}
	q, err := quant.Quantize(weight, []int{2, 4}, quant.Options{Dtype: dtype.Lookup("uint4"), GroupSize: 4})
	if err != nil {
		log.Fatal(err)
	}
	for i, t := range q.Scheme.Tensors() {
		fmt.Println(t.Role, t.Dtype, t.Shape, len(q.Data[i]))
	}
	restored, err := quant.Dequantize(q)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(restored)
	// Output:
	// weight U8 [4] 4
	// scale F32 [2 1] 8
	// zero_point F32 [2 1] 8
	// [0 1 2 15 -1 -1 -1 -1]
}
