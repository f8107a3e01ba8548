package laravel_test

import (
	"bytes"
	"fmt"

	"github.com/fpm-gate/fpm-gate/laravel"
)

func ExampleCookies_Open() {
	key := bytes.Repeat([]byte("k"), 32) // what APP_KEY has after "base64:", decoded
	cookies, err := laravel.New([][]byte{key})
	if err != nil {
		fmt.Println(err)
		return
	}
	value := "" + // of the cookie
		"eyJpdiI6ImRIZGxiSFpsSUdKNWRHVnoiLCJ2YWx1ZSI6Ikc2NnAvbU55RFVwK1Q3TkJhTlAvMGIxR2NrSjUvdTFDdGhiblBC" +
		"WkkwZUV1TklPbUVXVlRHWjVHYXV6RVRab1NaM0NsM0RJanY3R3hWcXNSU3A4S3p4NGIvb25uaVBqNkFBdUVyWEpPWDBSaSIs" +
		"Im1hYyI6IiIsInRhZyI6Imh3QWo1TnFoZXIvRS9OV011YURUYnc9PSJ9"
	id, ok := cookies.Open("laravel_session", []byte(value))
	fmt.Printf("%s %t\n", id, ok)

	_, ok = cookies.Open("another_cookie", []byte(value)) // it was made for the other name
	fmt.Println(ok)
	// Output:
	// abcdefghijABCDEFGHIJ0123456789klmnoKLMNO true
	// false
}
