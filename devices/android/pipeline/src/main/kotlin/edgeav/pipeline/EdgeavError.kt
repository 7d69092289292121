package edgeav.pipeline

/** What the user can put right: the message says what is wrong, what is allowed and what to do. */
class EdgeavError(message: String, cause: Throwable? = null) : Exception(message, cause)
