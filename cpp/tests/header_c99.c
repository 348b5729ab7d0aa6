/* The header is C99, and its enumerations are the numbers they were. */
#include "defectrt/defectrt.h"

typedef char status_is_pinned[(DEFECTRT_OK == 0 && DEFECTRT_ERROR == 1 && DEFECTRT_USAGE == 2 &&
                               DEFECTRT_INPUT == 3 && DEFECTRT_ENGINE == 4 &&
                               DEFECTRT_NOTHING_DONE == 8 && DEFECTRT_NO_MEMORY == 20 &&
                               DEFECTRT_BUSY == 21 && DEFECTRT_PENDING == 22 &&
                               DEFECTRT_CLOSED == 23 && DEFECTRT_CANCELLED == 130)
                                  ? 1
                                  : -1];

int defectrt_test_header(void) { return sizeof(status_is_pinned) == 1; }
