/* tests/fakes/numbers.c: loads and stores elements of every dtype, in plain C */
#include <math.h>
#include <string.h>

#include "fake.h"

/* The number of 8 bits that a code stands for. */
static double load_narrow(attnrt_dtype dtype, uint8_t code) {
  if (dtype.code == ATTNRT_DTYPE_INT) return (int8_t)code;
  const int fnuz = dtype.code == ATTNRT_DTYPE_FLOAT8_E4M3FNUZ;
  if (fnuz ? code == 0x80 : (code & 0x7F) == 0x7F) return NAN;
  const int exponent = (code >> 3) & 15, fraction = code & 7;
  const double value =
      exponent == 0 ? ldexp(fraction, -9 - fnuz) : ldexp(8 + fraction, exponent - 10 - fnuz);
  return code & 0x80 ? -value : value;
}

double fake_load(const attnrt_tensor* t, int64_t at) {
  if (t->dtype.bits == 8) return load_narrow(t->dtype, ((const uint8_t*)t->data)[at]);
  if (t->dtype.bits == 32) return ((const float*)t->data)[at];
  const uint16_t bits = ((const uint16_t*)t->data)[at];
  if (t->dtype.code == ATTNRT_DTYPE_BFLOAT) {
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
  }
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  double value = exponent == 31  ? (fraction ? (double)NAN : (double)INFINITY)
                 : exponent == 0 ? ldexp(fraction, -24)
                                 : ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -value : value;
}

/* Rounds to `digits` significant bits, to nearest even; fewer bits below the smallest exponent. */
static double rounded(double value, int digits, int least_exponent) {
  int exponent;
  if (value == 0 || !isfinite(value)) return value;
  frexp(value, &exponent);
  if (exponent < least_exponent) exponent = least_exponent;
  return ldexp(nearbyint(ldexp(value, digits - exponent)), exponent - digits);
}

void fake_store(const attnrt_tensor* t, int64_t at, double value) {
  if (t->dtype.bits == 32) {
    ((float*)t->data)[at] = (float)value;
    return;
  }
  uint16_t bits;
  if (t->dtype.code == ATTNRT_DTYPE_BFLOAT) {
    const float narrow = (float)rounded(value, 8, -125);
    uint32_t wide;
    memcpy(&wide, &narrow, sizeof wide);
    bits = (uint16_t)(wide >> 16 | (isnan(narrow) ? 64 : 0));
  } else {
    const double near = fabs(rounded(value, 11, -13));
    int exponent;
    if (isnan(near)) {
      bits = 0x7E00;
    } else if (near >= 65520) {
      bits = 0x7C00;
    } else if (near < ldexp(1, -14)) {
      bits = (uint16_t)ldexp(near, 24);
    } else {
      frexp(near, &exponent);
      bits = (uint16_t)((exponent + 14) * 1024 + (int)(ldexp(near, 11 - exponent) - 1024));
    }
    bits |= signbit(value) ? 0x8000 : 0;
  }
  ((uint16_t*)t->data)[at] = bits;
}

double fake_rounded(const attnrt_tensor* like, double value) {
  float memory;
  attnrt_tensor one = *like;
  one.data = &memory;
  fake_store(&one, 0, value);
  return fake_load(&one, 0);
}
