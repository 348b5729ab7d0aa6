# Runs COMMAND some times: it has to end with 0 and say nothing.
foreach(i RANGE 1 ${TIMES})
  execute_process(COMMAND ${COMMAND} RESULT_VARIABLE code OUTPUT_VARIABLE said ERROR_VARIABLE said
                  TIMEOUT 60)
  if(NOT code EQUAL 0 OR NOT said STREQUAL "")
    message(FATAL_ERROR "run ${i} of ${COMMAND}: ${code}\n${said}")
  endif()
endforeach()
